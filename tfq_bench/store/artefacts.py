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
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfq_bench.errors import StoreError
from tfq_bench.store.disk import explain, is_disk_error, sync_folder, sync_tree

__all__ = ["MANIFEST", "SCHEMA", "ArtefactStore"]

SCHEMA = 1
MANIFEST = "manifest.json"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_TEMPORARY = ".new-"

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
        return (self.path(stage, key) / MANIFEST).is_file()

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
            raise explain(error, final.parent) from error
        try:
            yield folder
            self.before_sealing()
            _write_manifest(folder, stage, key)
            sync_tree(folder)
            self._publish(folder, final)
        except Exception as error:
            if is_disk_error(error, self.root):
                raise explain(error, final) from error
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # gone already when it was published
            os.close(lock)

    def open(self, stage: str, key: str) -> Path:
        """The artefact's folder, its files checked against their digests once per store object.

        Raises:
            StoreError: it does not exist, or a file is missing or has another digest.
        """
        folder = self.path(stage, key)
        if folder not in self._verified:
            _verify(folder)
            self._verified.add(folder)
        return folder

    def result(self, stage: str, key: str) -> dict[str, Any]:
        """The artefact's `result.json`; StoreError as for `open`, or when it has none."""
        path = self.open(stage, key) / "result.json"
        return _read_json(path)

    def _publish(self, folder: Path, final: Path) -> None:
        try:
            folder.rename(final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if (final / MANIFEST).is_file():
                return  # made by somebody else from the same content
            shutil.rmtree(final)  # without a manifest it was not written by this class
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


def _write_manifest(folder: Path, stage: str, key: str) -> None:
    assert not (folder / MANIFEST).exists(), f"stage {stage} must not write {MANIFEST}"
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    content = {"schema": SCHEMA, "stage": stage, "key": key, "files": files}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def _verify(folder: Path) -> None:
    manifest = _read_json(folder / MANIFEST)
    if manifest.get("schema") != SCHEMA:
        raise StoreError(
            f"'{folder}': expected an artefact of schema {SCHEMA}, found "
            f"{manifest.get('schema')!r}. Use the version of tfq-bench that wrote it."
        )
    for name, expected in manifest["files"].items():
        path = folder / name
        try:
            found = _sha256(path)
        except FileNotFoundError:
            found = "no file"
        except OSError as error:
            raise explain(error, path, "read") from error
        if found != expected["sha256"]:
            raise StoreError(
                f"'{path}' has changed since it was written: expected SHA-256 "
                f"{expected['sha256']}, found {found}. Delete the folder '{folder}' and run the "
                "suite again."
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise StoreError(
            f"expected '{path}', found no such file. Run the suite again to make it."
        ) from None
    except OSError as error:
        raise explain(error, path, "read") from error
    except ValueError as error:
        raise StoreError(
            f"'{path}' is not JSON: {error}. Delete the folder '{path.parent}' and run the suite "
            "again."
        ) from None
    return content
