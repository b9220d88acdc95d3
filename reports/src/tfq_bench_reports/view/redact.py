"""Text from logs, suites and commands without what looks like a secret.

Every pattern takes time in proportion to the text: what comes between the parts of a match
is bounded, so that one line of five million characters is no different from many short ones.
"""

from __future__ import annotations

import re

__all__ = ["MASK", "redact"]

MASK = "[redacted]"

_NAMED = re.compile(
    r"(?i)((?:token|secret|passw(?:or)?d|api[_-]?key|credential)[\w-]{0,64}[\"']?"
    r"\s{0,16}[=:]\s{0,16})(\"[^\"\n]*\"|'[^'\n]*'|[^\s,;]+)"
)
_BEARER = re.compile(
    r"(?i)(\bauthorization\s{0,16}[=:]\s{0,16}|\bbearer\s{1,16})(?:(?:bearer|basic)\s{1,16})?\S+"
)
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
