"""Files that a user hands over by path and digest. Nothing here downloads, nothing substitutes."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from tfq_bench.errors import AssetError

__all__ = ["require_file", "sha256_of"]


def sha256_of(path: Path) -> str:
    """SHA-256 of the file's content, hexadecimal; remembered while the file stays unchanged.

    Raises:
        AssetError: the file cannot be read.
    """
    try:
        status = path.stat()
        return _sha256(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise AssetError(f"{path}: cannot be read: {error.strerror}.") from error


@cache
def _sha256(path: Path, mtime_ns: int, size: int) -> str:  # noqa: ARG001  (part of the cache key)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_file(path: str, sha256: str, *, what: str, offer: str) -> tuple[Path, str]:
    """The file and its full digest, once both are what they should be.

    Args:
        path: as given by the user; empty when nothing was given.
        sha256: expected digest or its first digits, hexadecimal.
        what: name of the file for messages. offer: where it comes from and how to pass it.

    Raises:
        AssetError: not given, not there, or of another digest; ends with `offer`.
    """
    if not path:
        raise AssetError(f"{what}: the file was not given. {offer}")
    file = Path(path)
    if not file.is_file():
        raise AssetError(f"{what}: there is no file {file}. {offer}")
    found = sha256_of(file)
    if not found.startswith(sha256.lower()):
        raise AssetError(
            f"{what}: {file} has SHA-256 {found}, expected {sha256.lower()}; it is another file or "
            f"damaged. {offer}"
        )
    return file, found
