"""Files that a user hands over by path and digest. Nothing here downloads, nothing substitutes."""

from __future__ import annotations

from pathlib import Path

from tfq_bench.assets.declared import sha256_of
from tfq_bench.errors import AssetError

__all__ = ["require_file", "sha256_of"]


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
        raise AssetError(f"{what}: there is no file {file}. {offer}", file=file)
    found = sha256_of(file)
    if not found.startswith(sha256.lower()):
        raise AssetError(
            f"{what}: {file} has SHA-256 {found}, expected {sha256.lower()}; it is another file or "
            f"damaged. {offer}",
            file=file,
            expected=sha256.lower(),
            found=found,
        )
    return file, found
