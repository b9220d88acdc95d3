"""Text from logs, suites and commands without what looks like a secret."""

from __future__ import annotations

import re

__all__ = ["MASK", "redact"]

MASK = "[redacted]"

_NAMED = re.compile(
    r"(?i)([\w-]*(?:token|secret|passw(?:or)?d|api[_-]?key|credential)[\w-]*[\"']?\s*[=:]\s*)"
    r"(\"[^\"\n]*\"|'[^'\n]*'|[^\s,;]+)"
)
_BEARER = re.compile(r"(?i)(\bauthorization\s*[=:]\s*|\bbearer\s+)(?:(?:bearer|basic)\s+)?\S+")
_IN_URL = re.compile(r"(://)[^/\s:@]+:[^/\s@]+(@)")
_SHAPED = re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|AKIA[A-Z0-9]{12,})\b")


def redact(text: str) -> str:
    """`text` with values of secret-like names, URL passwords and well-known tokens masked.

    >>> redact("HF_TOKEN=abc123 steps=10")
    'HF_TOKEN=[redacted] steps=10'
    """
    text = _BEARER.sub(rf"\1{MASK}", text)
    text = _NAMED.sub(rf"\1{MASK}", text)
    text = _IN_URL.sub(rf"\1{MASK}\2", text)
    return _SHAPED.sub(MASK, text)
