"""Folders for the time of a piece of work, in the system's temporary folder.

A folder is locked by whoever works in it, and the lock ends with the process, whatever ends that;
so the next run can tell what was left behind from what is in use.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tfq_bench.errors import StoreError

__all__ = ["remove_abandoned_scratch", "scratch_folder"]

_PREFIX = "tfq-bench-"
_NAME = re.compile(_PREFIX + r"[a-z0-9_]{8}")
_MARK = ".tfq-bench-scratch"
"""A file in each of our folders: others may choose names that look like ours."""


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder, deleted when the block ends.

    Raises:
        StoreError: there is no room for it.
    """
    try:
        folder, lock = _locked()
    except OSError as error:
        raise StoreError(
            f"expected a temporary folder with room, found none: {error.strerror}. Make room, or "
            "set TMPDIR to a folder on a larger disk, then repeat the command."
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned_scratch() -> None:
    """Deletes the folders of this user whose process is gone."""
    try:
        home = Path(tempfile.gettempdir())
    except FileNotFoundError:  # none has room
        return
    for folder in home.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if not _NAME.fullmatch(folder.name) or folder.is_symlink():
                continue
            if folder.stat().st_uid != os.getuid():
                continue
            if not (folder / _MARK).exists():
                folder.rmdir()  # ended before it was marked; refused unless it is empty
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _locked() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            (folder / _MARK).touch()
        except FileNotFoundError:  # removed as abandoned before it was marked
            os.close(lock)
            continue
        return folder, lock
