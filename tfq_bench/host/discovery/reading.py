"""Small files that others wrote, read without waiting, without end and without surprise."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["read_small"]


def read_small(path: Path, limit: int, *, owner: int | None = None) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Args:
        owner: user id that the file must have, None for any.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no regular file, too large, somebody else's or unreadable; in words.
    """
    try:
        # A pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        if owner is not None and status.st_uid != owner:
            raise ValueError(f"it belongs to user {status.st_uid}")
        if status.st_size > limit:
            raise ValueError(f"it has {status.st_size:,} bytes, more than the {limit:,} allowed")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read(limit)
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
