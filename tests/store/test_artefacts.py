"""Artefacts are whole or absent, whatever happens while they are written."""

import errno
import hashlib
import os
import signal
import subprocess
import sys

import pytest
from safetensors import SafetensorError

from tfq_bench.errors import StoreError
from tfq_bench.store.artefacts import ArtefactStore
from tfq_bench.store.run import RunFolder


def write(store, key="k0", content='{"a": 1}'):
    """A finished artefact with one file and one folder."""
    with store.create("lower", key) as folder:
        (folder / "result.json").write_text(content)
        (folder / "state").mkdir()
        (folder / "state" / "manifest.json").write_text("{}")
    return store.path("lower", key)


def half_write(store, error):
    """An artefact whose writing ends with an error after its first file."""
    with store.create("lower", "k0") as folder:
        (folder / "half").write_text("x")
        raise error


def leftovers(store):
    """Everything in the stage's folder that is not an artefact."""
    return [path.name for path in store.root.glob("*/*") if not (path / "manifest.json").exists()]


def test_an_artefact_is_found_and_read_after_its_block(tmp_path):
    """Inside the block it does not exist yet; after it, it does, for other stores too."""
    store = ArtefactStore(tmp_path)
    with store.create("lower", "k0") as folder:
        (folder / "result.json").write_text('{"a": 1}')
        assert not store.has("lower", "k0")
    assert ArtefactStore(tmp_path).has("lower", "k0")
    assert {"a": 1} == ArtefactStore(tmp_path).result("lower", "k0")
    assert [] == leftovers(store)


def test_an_error_leaves_nothing(tmp_path):
    """The error passes through unchanged and the temporary folder is gone."""
    store = ArtefactStore(tmp_path)
    with pytest.raises(ValueError, match="boom"):
        half_write(store, ValueError("boom"))
    assert not store.has("lower", "k0")
    assert [] == list(tmp_path.glob("*/*"))


KILLED = """
import sys, time
from pathlib import Path
from tfq_bench.store.artefacts import ArtefactStore
with ArtefactStore(Path(sys.argv[1])).create("lower", "k0") as folder:
    (folder / "result.json").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_a_killed_writer_leaves_no_artefact_and_is_cleaned_up(tmp_path):
    """A living writer's folder stays; after SIGKILL the next opening removes it."""
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert "writing\n" == child.stdout.readline()
        assert 1 == len(leftovers(ArtefactStore(tmp_path)))
        os.kill(child.pid, signal.SIGKILL)
    store = ArtefactStore(tmp_path)
    assert not store.has("lower", "k0")
    assert [] == leftovers(store)
    write(store)
    assert {"a": 1} == store.result("lower", "k0")


@pytest.mark.parametrize("name", ["result.json", "state/manifest.json"])
def test_a_changed_file_is_refused_with_both_digests(tmp_path, name):
    """The message names the file, what was expected and what was found."""
    folder = write(ArtefactStore(tmp_path))
    (folder / name).write_bytes(b" " * (folder / name).stat().st_size)
    with pytest.raises(StoreError) as caught:
        ArtefactStore(tmp_path).open("lower", "k0")
    assert str(folder / name) in str(caught.value)
    assert "expected SHA-256" in str(caught.value)
    found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert f"found {found}" in str(caught.value)


def test_a_removed_file_and_a_missing_artefact_are_told_apart(tmp_path):
    """Both say what to do."""
    folder = write(ArtefactStore(tmp_path))
    (folder / "result.json").unlink()
    with pytest.raises(StoreError, match=r"result.json' is missing\. 'tfq-bench run' removes"):
        ArtefactStore(tmp_path).open("lower", "k0")
    with pytest.raises(StoreError, match=r"found no such file\. Run the suite"):
        ArtefactStore(tmp_path).open("lower", "k1")


def test_the_first_of_two_equal_artefacts_stays(tmp_path):
    """Content keys make them equal, so the loser of a race is dropped silently."""
    store = ArtefactStore(tmp_path)
    with store.create("lower", "k0") as folder:
        (folder / "result.json").write_text('{"a": 2}')
        write(store)
    assert {"a": 1} == store.result("lower", "k0")
    assert [] == leftovers(store)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_told_in_words(tmp_path, error):
    """Whichever library noticed, the message names the path, and nothing is half-written."""
    store = ArtefactStore(tmp_path)
    with pytest.raises(StoreError, match="no space is left; make room") as caught:
        half_write(store, error)
    assert str(tmp_path / "lower" / "k0") in str(caught.value)
    assert [] == list(tmp_path.glob("*/*"))


def test_a_full_disk_while_syncing_publishes_nothing(tmp_path, monkeypatch):
    """Delayed allocation reports a full disk only in fsync."""
    store = ArtefactStore(tmp_path)

    def fsync(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreError, match="no space is left"):
        write(store)
    assert not store.has("lower", "k0")
    assert [] == list(tmp_path.glob("*/*"))


def test_a_read_only_folder_is_told_in_words(tmp_path, monkeypatch):
    """Permission errors name the folder and what to do."""

    def mkdtemp(**kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

    monkeypatch.setattr("tempfile.mkdtemp", mkdtemp)
    with pytest.raises(StoreError, match="permission was denied; make it writable"):
        write(ArtefactStore(tmp_path))


def test_errors_about_other_files_pass_through(tmp_path):
    """A stage that cannot read its own input is not told that the store is at fault."""
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "weights"))
    with pytest.raises(PermissionError):
        half_write(ArtefactStore(tmp_path / "store"), error)


def test_names_cannot_leave_the_root(tmp_path):
    """Keys come from files; a path in one of them is refused."""
    with pytest.raises(StoreError, match="must match"):
        ArtefactStore(tmp_path).path("lower", "../../etc")


def test_the_store_is_not_left_open(tmp_path):
    """What is raised before an artefact is sealed leaves none behind."""
    folder = RunFolder.prepare(tmp_path / "run")
    folder.write("", {"schema": 1, "cells": []})

    def refuse():
        raise StoreError("changed")

    folder.artefacts.before_sealing = refuse
    with pytest.raises(StoreError, match="changed"), folder.artefacts.create("lower", "k") as path:
        (path / "x").write_text("x")
    assert not folder.artefacts.has("lower", "k")
    assert [] == [p for p in (tmp_path / "run" / "artefacts").rglob("*") if p.is_file()]
