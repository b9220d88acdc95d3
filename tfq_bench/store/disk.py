"""Writing that survives crashes, and disk errors in words."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from pathlib import Path

from tfq_bench.errors import StoreError

__all__ = ["is_disk_error", "store_error", "sync_folder", "sync_tree", "write_atomically"]

_WORDS = {
    errno.ENOSPC: "no space is left; make room",
    errno.EDQUOT: "the disk quota is used up; make room",
    errno.EFBIG: "the file is too large for the file system; choose another folder",
    errno.EACCES: "permission was denied; make it writable or choose another folder",
    errno.EPERM: "permission was denied; make it writable or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOTDIR: "a part of the path is not a folder; choose another folder",
    errno.EISDIR: "it is a folder; move it away",
    errno.EEXIST: "something else stands there; move it away",
    errno.EIO: "the disk reported an error; check it",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}

_FOREIGN = re.compile(r"\(os error (\d+)\)|\bcode: (\d+)")
"""How errors of Rust libraries (safetensors) carry the operating system's number in their text."""


def store_error(error: BaseException, path: Path, doing: str = "write") -> StoreError:
    """A StoreError that says what could not be done, where, why, and what to do.

    Args:
        doing: `write` or `read`.
    """
    number = _number(error)
    reason = _WORDS.get(number) if number is not None else None
    if reason is None:
        reason = f"{getattr(error, 'strerror', None) or error}; check the folder"
    return StoreError(
        f"cannot {doing} '{path}': {reason}, then repeat the command.", file=path, found=reason
    )


def is_disk_error(error: BaseException, folder: Path) -> bool:
    """True when `error` came from writing into `folder`, whichever library wrote."""
    if _number(error) not in _WORDS:
        return False
    name = getattr(error, "filename", None)
    return name is None or Path(os.fsdecode(name)).is_relative_to(folder)


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable: files created, renamed or removed there."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Makes every file and folder below `folder` durable."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            with (Path(parent) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))


def write_atomically(path: Path, text: str) -> None:
    """Writes `path` so that readers see the old text or the new one, never a part.

    What is no regular file (`/dev/stdout`, a pipe) is written into: renaming would replace it.

    Raises:
        StoreError: disk full, no permission; the old file is then unchanged.
    """
    temporary = None
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            with path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                file.write(text)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(
            descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="\n"
        ) as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise store_error(error, path) from error
        raise


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    if type(error).__name__ == "SafetensorError":
        found = _FOREIGN.search(str(error))
        return int(found[1] or found[2]) if found else None
    return None


def _umask() -> int:
    """The process's mask; temporary files are private until they carry their final mode."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
