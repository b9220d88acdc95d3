"""`manifest.json` of an artefact: what was written, and whether it still is that."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tfq_bench.errors import StoreError
from tfq_bench.foreign.text import parse_json, printable
from tfq_bench.keys import file_digest
from tfq_bench.store.disk import store_error

__all__ = ["MANIFEST", "SCHEMA", "Damaged", "read_json", "verify", "write_manifest"]

SCHEMA = 1
MANIFEST = "manifest.json"
MAX_BYTES = 64 * 2**20


def write_manifest(folder: Path, stage: str, key: str) -> None:
    """Lists every file of an artefact with its size and digest, as its last file."""
    assert not (folder / MANIFEST).exists(), f"stage {stage} must not write {MANIFEST}"
    files = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": file_digest(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    content = {"schema": SCHEMA, "stage": stage, "key": key, "files": files}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", "utf-8")


class Damaged(Exception):
    """What an artefact should be and is not, as a sentence."""


def verify(folder: Path, stage: str, key: str, *, below: float = math.inf) -> bool:
    """Whether every file was read; those of `below` bytes and more are only measured.

    Raises:
        Damaged: the folder is not what was written for this stage and key.
        StoreError: there is none, of another schema, or it cannot be read.
    """
    if folder.is_symlink():
        raise Damaged(f"'{folder}' is a link, expected a folder.")
    manifest = _manifest(folder)
    found = (manifest.get("stage"), manifest.get("key"))
    if found != (stage, key):
        raise Damaged(
            f"'{folder}' holds another artefact: expected {stage} {key}, its manifest says "
            f"{printable(found[0], 40)} {printable(found[1], 80)}."
        )
    listed = manifest.get("files")
    if not isinstance(listed, dict) or manifest.keys() != {"schema", "stage", "key", "files"}:
        raise Damaged(f"'{folder / MANIFEST}' is no list of files as it was written.")
    present = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    } - {MANIFEST}
    if odd := sorted(present ^ set(listed)):
        what = "is missing" if odd[0] in listed else "was not written by this run"
        raise Damaged(f"'{folder / odd[0]}' {what}.")
    complete = True
    for name, expected in listed.items():
        complete &= _verify_file(folder / name, expected, below)
    return complete


def _verify_file(path: Path, expected: Any, below: float) -> bool:
    if path.is_symlink():
        raise Damaged(f"'{path}' is a link, expected a file.")
    try:
        size = path.stat().st_size
        if not isinstance(expected, dict) or expected.keys() != {"bytes", "sha256"}:
            raise Damaged(
                f"'{path}': expected its size and digest in the manifest, found "
                f"{printable(repr(expected), 80)}."
            )
        if size != expected["bytes"]:
            raise Damaged(
                f"'{path}' has changed since it was written: expected "
                f"{printable(expected['bytes'], 40)} bytes, found {size}."
            )
        if size >= below:
            return False
        found = file_digest(path)
    except OSError as error:
        raise store_error(error, path, "read") from error
    if found != expected["sha256"]:
        raise Damaged(
            f"'{path}' has changed since it was written: expected SHA-256 "
            f"{printable(expected['sha256'], 80)}, found {found}."
        )
    return True


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if path.is_symlink():
        raise Damaged(f"'{path}' is a link, expected a file.")
    if not path.exists():
        raise StoreError(f"expected '{path}', found no such file. Run the suite again to make it.")
    try:
        content = parse_json(path.read_bytes(), max_bytes=MAX_BYTES)
    except OSError as error:
        raise store_error(error, path, "read") from error
    except ValueError as error:
        raise Damaged(f"'{path}' is damaged: {error}.") from None
    if not isinstance(content, dict):
        raise Damaged(f"'{path}' is no JSON object.")
    if content.get("schema") != SCHEMA:
        # Keys hold the version of tfq-bench, so no other version wrote here.
        raise Damaged(
            f"'{path}': expected an artefact of schema {SCHEMA}, found "
            f"{printable(repr(content.get('schema')), 40)}."
        )
    return content


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of an artefact.

    Raises:
        Damaged: there is none.
        StoreError: it cannot be read.
    """
    try:
        content: dict[str, Any] = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise Damaged(f"expected '{path}', found no such file.") from None
    except OSError as error:
        raise store_error(error, path, "read") from error
    except ValueError as error:
        raise Damaged(f"'{path}' cannot be read: {error}.") from None
    if not isinstance(content, dict):
        raise Damaged(f"'{path}': expected a JSON object, found {type(content).__name__}.")
    return content
