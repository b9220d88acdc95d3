"""The version of a distribution, with a digest of its code where that can change under the number.

Results are stored by content, and code is part of what they depend on. A released version stands
for its code; an editable installation is edited without a new version, and its old results must
not be taken for those of the new code.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Protocol

from tfq_bench.foreign.text import parse_json

__all__ = ["code_version", "is_editable"]

DIGITS = 8


class Metadata(Protocol):
    """The metadata of a distribution, such as an `importlib.metadata.Distribution`."""

    def read_text(self, filename: str) -> str | None:
        """Text of one of its files, None when there is none."""


def is_editable(distribution: Metadata) -> bool:
    """Whether pip linked to its sources instead of copying them (PEP 610).

    Raises:
        ValueError: what is wrong with its `direct_url.json`, in words.
    """
    text = distribution.read_text("direct_url.json")
    if text is None:
        return False
    origin = parse_json(text)
    folder = origin.get("dir_info", {}) if isinstance(origin, dict) else None
    if not isinstance(folder, dict):
        raise ValueError("expected an object with the origin of the package (PEP 610)")
    return folder.get("editable", False) is True


def code_version(version: str, module: str) -> str:
    """`version`, then a digest of the Python files of `module`'s package, as PEP 440 writes it.

    Args:
        module: dotted name of any module of the package. Its top level is looked for and not
            imported; where it is not found, the version stands alone.
    """
    top = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return version
    total = hashlib.sha256()
    if spec.submodule_search_locations is None:
        files = [(top, Path(spec.origin or ""))]
    else:
        roots = [Path(root) for root in spec.submodule_search_locations]
        files = [(str(p.relative_to(root)), p) for root in roots for p in root.rglob("*.py")]
    for name, path in sorted(files):
        if path.is_file():
            total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return f"{version}+code.{total.hexdigest()[:DIGITS]}"
