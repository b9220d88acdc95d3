"""Files that say their own checksum, so that a number changed by hand or by a disk is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tfq_bench.foreign.text import parse_json, printable
from tfq_bench.store.shapes import Shape

__all__ = ["FIELD", "open_sealed", "seal"]

FIELD = "checksum"


def seal(content: Mapping[str, Any]) -> str:
    """The checksum of everything in `content` but itself; layout and order do not count."""
    rest = {name: value for name, value in content.items() if name != FIELD}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def open_sealed(text: bytes, *, schema: int, shape: Shape) -> dict[str, Any]:
    """The JSON object in `text`, of this schema and shape, and as it was when it was sealed.

    Raises:
        ValueError: what is wrong with it in words, ready to stand behind a file's name.
    """
    content = parse_json(text)
    found = content.get("schema") if isinstance(content, dict) else None
    if type(found) is not int or found != schema:
        raise ValueError(f"expected schema {schema}, found {printable(repr(found), 80)}")
    stated, actual = content.get(FIELD), seal(content)
    if stated != actual:
        raise ValueError(
            f"expected the checksum {printable(repr(stated), 80)}, found '{actual}': it was "
            "changed after it was written"
        )
    shape(content, "")
    assert isinstance(content, dict)
    return content
