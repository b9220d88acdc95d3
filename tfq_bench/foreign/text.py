"""Text and JSON that others wrote: plugins, files, libraries. Nothing of it is believed.

`printable` stands at every border where foreign text leaves the process (terminal, annotations,
reports) or enters a record; `parse_json` at every border where a file comes in.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

__all__ = ["MAX_DEPTH", "harmless", "parse_json", "printable"]

MAX_DEPTH = 64
"""Nesting that no file of ours comes near; the parser and everything after it is recursive."""

MAX_BYTES = 1 << 30

# C0 and C1 controls, the Unicode line and paragraph separators, the marks that reorder text on a
# terminal, and lone surrogates, which no encoding can say.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_UNPRINTABLE_IN_LINES = re.compile(_UNPRINTABLE.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def printable(text: object, limit: int = 2000) -> str:
    r"""`text` as one line without anything that a terminal, a log or a document would act on.

    Runs of whitespace become one space, other control characters their escapes; a text that goes
    on past `limit` characters ends with its true length.

    >>> printable("a\n::error::b\x1b[31m")
    'a ::error::b\\x1b[31m'
    """
    whole = _said(text)
    line = " ".join(whole[: 4 * limit].split())
    line = _UNPRINTABLE.sub(lambda found: _escape(found[0]), line)
    if len(line) <= limit and len(whole) <= 4 * limit:
        return line
    return f"{line[:limit]}... ({len(whole):,} characters)"


def harmless(text: str) -> str:
    r"""`text` with its lines and spaces as they are, and what else would act on a reader escaped.

    >>> harmless("a\n  b\x1b[31m")
    'a\n  b\\x1b[31m'
    """
    lines = text.replace("\r\n", "\n")
    return _UNPRINTABLE_IN_LINES.sub(lambda found: _escape(found[0]), lines)


def parse_json(content: bytes | str, *, max_bytes: int = MAX_BYTES) -> Any:
    """The JSON value in `content`, strict: no NaN, no key twice, bounded in size and depth.

    Raises:
        ValueError: what is wrong with it in words, ready to stand behind a file's name.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    if len(content) > max_bytes:
        raise ValueError(f"it has {len(content):,} bytes, more than the {max_bytes:,} allowed")
    if content.count(b"[") + content.count(b"{") > MAX_DEPTH and _depth(content) > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
    try:
        # Decoded here: json would guess UTF-16 and more.
        text = content.decode("utf-8-sig")
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 ({error.reason} at byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _said(text: object) -> str:
    """`str(text)`, also of an exception that cannot say itself."""
    try:
        return str(text)
    except Exception as error:
        return f"{type(text).__name__}, whose text raised {type(error).__name__}"


def _depth(content: bytes) -> int:
    deepest = depth = 0
    for found in _TOKEN.finditer(content):
        token = found[0]
        if token in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
        elif token in (b"]", b"}"):
            depth -= 1
    return deepest


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it says {printable(twice, 80)!r} twice in one object")
    return found


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
