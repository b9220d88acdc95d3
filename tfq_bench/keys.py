"""Content keys: the same inputs give the same key, on any machine, on any day.

A key is the head of a SHA-256 over canonical JSON. Worker counts, host names, paths and dates are
never among the inputs; a file is represented by what is in it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfq_bench.types import MetricDefinition

__all__ = ["canonical", "content_digest", "definition_id", "digest", "file_digest", "files_below"]


def canonical(value: Any) -> str:
    """`value` as JSON with sorted keys and no spaces; any mapping is an object, a tuple a list.

    Raises:
        ValueError: for NaN and infinities, which JSON cannot say.
        TypeError: for anything that is not JSON, keys other than text among it.
    """
    return json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        # json would write the keys 1 and "1" alike, and different contents would share a key.
        if strangers := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"keys must be text, found {strangers[0]!r}")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def digest(value: Any, length: int = 16) -> str:
    """The first `length` hexadecimal digits of the SHA-256 of `canonical(value)`."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal; OSError when it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and bytes of every file in a folder.

    Links count by what they lead to.

    Raises:
        OSError: it, or something in the folder, is not there or cannot be read, or is neither file
            nor folder.
    """
    if path.is_dir():
        return digest(
            {f.relative_to(path).as_posix(): content_digest(f) for f in files_below(path)}, 64
        )
    if path.exists() and not path.is_file():  # a pipe never ends, and neither does /dev/zero
        raise OSError(errno.EINVAL, "neither a file nor a folder", str(path))
    return file_digest(path)


def files_below(root: Path) -> list[Path]:
    """Everything below a folder that is none, through links, each folder once on the way down.

    Raises:
        OSError: a folder cannot be read, or a link leads back to one that holds it.
    """
    found: list[Path] = []

    def refuse(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(root, followlinks=True, onerror=refuse):
        here = Path(folder)
        if here != root and here.is_symlink() and here.resolve() in here.absolute().parents:
            raise OSError(errno.ELOOP, "a link leads back to a folder that holds it", folder)
        folders.sort()
        found += (here / name for name in files)
    return sorted(found)


def definition_id(definition: MetricDefinition) -> str:
    """`name@digest` of a metric's definition; equal ids mean comparable numbers."""
    content: dict[str, Any] = {
        "name": definition.name,
        "unit": definition.unit,
        "direction": definition.direction,
        "parameters": definition.parameters,
    }
    if (by := definition.measured_by) is not None:
        content["measured_by"] = {"metric": by.metric, "options": by.options}
    return f"{definition.name}@{digest(content, 8)}"
