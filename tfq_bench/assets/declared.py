"""Files that a component needs on disk and that come with no distribution.

A provider names a function that describes them (`Provider.assets`); `tfq-bench assets` lists,
checks and fetches them. Nothing here downloads, and nothing takes the place of what is missing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from tfq_bench.errors import AssetError, BrokenPlugin
from tfq_bench.foreign.text import printable
from tfq_bench.keys import file_digest

__all__ = ["Asset", "fetched_file", "sha256_of"]

FOLDER_VARIABLE = "TFQ_BENCH_ASSETS"
SIZE_TOLERANCE = 0.01
"""Relative; sizes come from pages that round to three digits."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{0,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file, or one part of a Hugging Face repository, that a component needs on disk.

    Args:
        name: what `tfq-bench assets fetch` calls it; a file has this name on disk too.
        what: a phrase for messages, without a full stop.
        kind: `file`, or `hub` for a snapshot of a repository in the hub's own cache.
        source: https address of the file (http only with all digits of `sha256`), or hub id.
        revision: commit, tag or branch on the hub; empty for its main branch.
        path: where it is; None when it is not on this machine, or not all of it.
        size: bytes to fetch, to one per cent; None when unknown. A file is held against it.
        sha256: lower-case hexadecimal; of a file (its first digits, where no more is published), or
            of one file of a snapshot. Empty when nobody has pinned it.
        licence: as its publisher states it; empty when not known.
        patterns: of a hub asset: groups of file patterns. A group is fetched only while `path` is
            None after the groups before it, so that formats that come second are left alone.
        advice: another way to provide it, as a sentence; empty when there is none.

    Raises:
        BrokenPlugin: a field is of another type, holds what cannot be printed in a line, a file's
            name is no plain file name, or the digest is none.
    """

    name: str
    what: str
    kind: Literal["file", "hub"]
    source: str
    path: Path | None
    revision: str = ""
    size: int | None = None
    sha256: str = ""
    licence: str = ""
    patterns: tuple[tuple[str, ...], ...] = ()
    advice: str = ""

    def __post_init__(self) -> None:
        for name in ("name", "what", "source", "revision", "sha256", "licence", "advice"):
            value = getattr(self, name)
            if not isinstance(value, str) or printable(value) != " ".join(value.split()):
                raise BrokenPlugin(
                    f"an asset's {name} should be text of one line, found {printable(value, 80)!r}."
                )
        self._check_facts()
        if self.kind == "file" and not _FILE_NAME.fullmatch(self.name):
            raise BrokenPlugin(
                f"asset '{printable(self.name, 80)}': expected a plain file name, such as "
                "'weights-1.pt'."
            )
        if not _SHA256.fullmatch(self.sha256):
            raise BrokenPlugin(
                f"asset '{self.name}': sha256 must be lower-case hexadecimal digits, at most 64, "
                f"found '{printable(self.sha256, 80)}'."
            )

    def _check_facts(self) -> None:
        size_known = isinstance(self.size, int) and not isinstance(self.size, bool)
        for name, wanted, fits in (
            ("kind", "'file' or 'hub'", self.kind in ("file", "hub")),
            ("path", "a Path or None", self.path is None or isinstance(self.path, Path)),
            (
                "size",
                "a number of bytes or None",
                self.size is None or (size_known and self.size >= 0),
            ),
            (
                "patterns",
                "a tuple of tuples of texts",
                isinstance(self.patterns, tuple)
                and all(isinstance(group, tuple) for group in self.patterns)
                and all(isinstance(one, str) for group in self.patterns for one in group),
            ),
        ):
            if not fits:
                found = printable(getattr(self, name), 80)
                raise BrokenPlugin(
                    f"asset '{printable(self.name, 80)}': {name} should be {wanted}, found {found}."
                )

    @property
    def digest_state(self) -> str:
        """`pinned`, `first N digits`, `commit` of a hub asset pinned by one, or `unknown`."""
        if self.kind == "hub" and not self.sha256 and _COMMIT.fullmatch(self.revision):
            return "commit"
        digits = len(self.sha256)
        return "pinned" if digits == 64 else f"first {digits} digits" if digits else "unknown"


def assets_folder() -> Path:
    """Where fetched files lie: `$TFQ_BENCH_ASSETS`, or `~/.cache/tfq-bench/assets`."""
    given = os.environ.get(FOLDER_VARIABLE)
    return Path(given).expanduser() if given else Path.home() / ".cache" / "tfq-bench" / "assets"


def fetched_file(name: str) -> Path | None:
    """The fetched file of that name; None when it is not there. Its digest is not looked at."""
    path = assets_folder() / name
    return path if path.is_file() else None


def sha256_of(path: Path) -> str:
    """SHA-256 of the file's content, hexadecimal; remembered while the file stays unchanged.

    Raises:
        AssetError: the file cannot be read.
    """
    try:
        status = path.stat()
        return _sha256(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise AssetError(f"{path}: cannot be read: {error.strerror}.", file=path) from error


@cache
def _sha256(path: Path, mtime_ns: int, size: int) -> str:  # noqa: ARG001  (part of the cache key)
    return file_digest(path)


def file_fault(path: Path, asset: Asset) -> str:
    """What is wrong with a file that is to be `asset`: another size or digest; empty when nothing.

    Raises:
        AssetError: the file cannot be read.
    """
    size = path.stat().st_size
    if asset.size is not None and abs(size - asset.size) > SIZE_TOLERANCE * asset.size:
        return f"expected {asset.size} bytes, found {size}"
    found = sha256_of(path)
    if not found.startswith(asset.sha256):
        return f"expected the SHA-256 {asset.sha256}, found {found}"
    return ""


def asset_fault(asset: Asset) -> str:
    """What is wrong with an asset that is on this machine; empty when nothing is.

    The hub's cache names large files by their SHA-256, so they are checked without being pinned.

    Raises:
        AssetError: a file of it cannot be read.
    """
    assert asset.path is not None
    if asset.kind == "file":
        return file_fault(asset.path, asset)
    digests = set()
    for file in sorted(path for path in asset.path.rglob("*") if path.is_file()):
        blob = file.resolve()
        found = sha256_of(blob)
        digests.add(found)
        if len(blob.name) == 64 and found != blob.name:
            return f"{file.relative_to(asset.path)} has changed since it was fetched"
    if asset.sha256 and not any(found.startswith(asset.sha256) for found in digests):
        return f"no file of it has the SHA-256 {asset.sha256}"
    return ""


def identity(asset: Asset) -> str:
    """What a stored result depends on: digest of a file, or the commit of a hub snapshot."""
    assert asset.path is not None
    return sha256_of(asset.path) if asset.kind == "file" else asset.path.name


def readable_size(size: int | None) -> str:
    """`95.6 MB`; `unknown` for None."""
    if size is None:
        return "unknown"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} B"
