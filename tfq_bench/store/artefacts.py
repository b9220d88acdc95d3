"""Artefacts: folders named by the content key of what made them, whole or absent.

An artefact is written under a temporary name, made durable and renamed, so that a process killed
at any instant leaves nothing that looks finished. Its `manifest.json` holds the SHA-256 of every
file, checked when the artefact is opened.

    <root>/<stage>/<key>/manifest.json, ...
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfq_bench.errors import DamagedArtefact, StoreError
from tfq_bench.store.disk import is_disk_error, store_error, sync_folder, sync_tree
from tfq_bench.store.manifest import MANIFEST, Damaged, read_json, verify, write_manifest

__all__ = ["ArtefactStore"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_TEMPORARY = ".new-"
_NO_STAGES = ("checkpoints",)
_LARGE = 64 * 2**20

log = logging.getLogger("tfq_bench.store")


class ArtefactStore:
    """The artefacts below `root`; opening it removes what dead processes left half-written.

    Args:
        root: created by the first artefact.

    Attributes:
        before_sealing: called when an artefact is written, before it counts; what it raises
            leaves none behind.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.before_sealing: Callable[[], None] = lambda: None
        self._verified: set[Path] = set()
        self._remove_abandoned()

    def path(self, stage: str, key: str) -> Path:
        """Where the artefact is or would be."""
        for name in (stage, key):
            if not _NAME.fullmatch(name):
                raise StoreError(
                    f"an artefact's stage and key must match {_NAME.pattern}, found {name!r}."
                )
        return self.root / stage / key

    def has(self, stage: str, key: str) -> bool:
        """True when the artefact is finished."""
        folder = self.path(stage, key)
        return (folder / MANIFEST).is_file() and not folder.is_symlink()

    @contextlib.contextmanager
    def create(self, stage: str, key: str) -> Iterator[Path]:
        """A folder to write into, which becomes the artefact when the block ends without error.

        When another process finished the same artefact in the meantime, that one stays.

        Raises:
            StoreError: disk full, no permission; nothing is left behind.
        """
        final = self.path(stage, key)
        try:
            folder, lock = _temporary_folder(final)
        except OSError as error:
            raise store_error(error, final.parent) from error
        try:
            yield folder
            self.before_sealing()
            write_manifest(folder, stage, key)
            sync_tree(folder)
            self._publish(folder, final)
        except Exception as error:
            if is_disk_error(error, self.root):
                raise store_error(error, final) from error
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # gone already when it was published
            os.close(lock)

    def open(self, stage: str, key: str) -> Path:
        """The artefact's folder, its files checked against their digests once per store object.

        Raises:
            DamagedArtefact: a file is missing or has another digest.
            StoreError: it does not exist, or cannot be read.
        """
        folder = self.path(stage, key)
        if folder not in self._verified:
            try:
                verify(folder, stage, key)
            except Damaged as error:
                raise DamagedArtefact(str(error), stage=stage, key=key) from None
            self._verified.add(folder)
        return folder

    def remove_damaged(self) -> list[str]:
        """Deletes artefacts that are not what was written, and says why of each.

        Of files beyond 64 MiB only the size is looked at; `open` reads them all, and what it finds
        is removed by `remove`. Call it in the process that holds the run.

        Raises:
            StoreError: one cannot be read or deleted.
        """
        notes = []
        for folder in sorted(self.root.glob("*/*")):
            stage, key = folder.parent.name, folder.name
            if stage in _NO_STAGES or folder.name.startswith(_TEMPORARY):
                continue
            try:
                if not (folder / MANIFEST).is_file() and not folder.is_symlink():
                    continue  # not finished: it is made, or was never ours
                if verify(folder, stage, key, below=_LARGE):
                    self._verified.add(folder)
            except Damaged as error:
                notes.append(self.remove(DamagedArtefact(str(error), stage=stage, key=key)))
        return notes

    def remove(self, damaged: DamagedArtefact) -> str:
        """Deletes an artefact and says why; StoreError when it cannot be deleted."""
        folder = self.path(damaged.stage, damaged.key)
        self._verified.discard(folder)
        try:
            _remove(folder)
        except OSError as error:
            raise store_error(error, folder) from error
        return f"{damaged.found} It was removed, and is made again when it is needed."

    def remove_finished_checkpoints(self) -> None:
        """Deletes checkpoints of states that are finished, which a kill may leave."""
        for folder in self.root.glob("checkpoints/*"):
            with contextlib.suppress(StoreError):
                if self.has("quantize", folder.name):
                    shutil.rmtree(folder, ignore_errors=True)

    def result(self, stage: str, key: str) -> dict[str, Any]:
        """The artefact's `result.json`; DamagedArtefact and StoreError as for `open`."""
        path = self.open(stage, key) / "result.json"
        try:
            return read_json(path)
        except Damaged as error:
            raise DamagedArtefact(str(error), stage=stage, key=key) from None

    def _publish(self, folder: Path, final: Path) -> None:
        try:
            folder.rename(final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            if (final / MANIFEST).is_file() and not final.is_symlink():
                return  # made by somebody else from the same content
            _remove(final)  # without a manifest it was not written by this class
            folder.rename(final)
        sync_folder(final.parent)

    def _remove_abandoned(self) -> None:
        for folder in self.root.glob(f"*/{_TEMPORARY}*"):
            try:
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # its writer lives, or the file system cannot tell
            else:
                log.info("removing %s, left by a process that ended early", folder)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def _temporary_folder(final: Path) -> tuple[Path, int]:
    """A new folder beside `final` and the descriptor that holds its lock.

    The lock ends with the process, whatever ends it; that is how an abandoned folder is known.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{final.name}-", dir=final.parent))
        try:
            folder.chmod(0o755)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            log.debug("the file system of %s has no locks", folder)
        if folder.is_dir():
            return folder, descriptor
        os.close(descriptor)  # removed as abandoned between its creation and its lock


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path)
