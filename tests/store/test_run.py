"""A run folder is recognised, leased by one process, and read without torch."""

import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from tfq_bench.errors import StoreError
from tfq_bench.plan.plan import SCHEMA
from tfq_bench.store.records import append
from tfq_bench.store.run import RunFolder


def test_a_run_is_opened_where_it_was_created(run, record):
    """Plan, suite and records come back; records of cells no longer planned do not."""
    append(run.records_path, [record("c0"), record("gone")])
    found = RunFolder.open(run.path)
    assert ["c0", "c1"] == [cell["key"] for cell in found.plan()["cells"]]
    assert "schema = 1\n" == (run.path / "suite.toml").read_text()
    assert ["c0"] == [r.cell for r in found.records()]


def test_creating_a_run_again_keeps_its_records(run, record, plan):
    """The same command resumes."""
    append(run.records_path, [record("c0")])
    again = RunFolder.prepare(run.path)
    again.write("schema = 1\n", plan("c0"))
    assert ["c0"] == [r.cell for r in again.records()]


def test_folders_that_are_not_runs_are_refused(tmp_path, plan):
    """Neither read as a run nor overwritten by one."""
    with pytest.raises(StoreError, match="found no such folder"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(StoreError, match=r"found no plan\.json in it"):
        RunFolder.open(tmp_path)
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(StoreError, match="found other files"):
        RunFolder.prepare(tmp_path)


def test_an_older_plan_is_refused_until_the_suite_runs_again(tmp_path, plan):
    """It is not read; a run in the folder, which is its own, writes it anew and says so."""
    run = RunFolder.prepare(tmp_path / "run")
    run.write("", plan() | {"schema": SCHEMA - 1})
    with run.lease():  # which every run takes, and which marks a folder as its own
        pass
    words = rf"expected schema {SCHEMA}, found {SCHEMA - 1}\. Run the suite again"
    with pytest.raises(StoreError, match=words):
        RunFolder.open(run.path)
    again = RunFolder.prepare(run.path)
    again.write("", plan("c0"))
    assert [f"plan.json is written anew: expected schema {SCHEMA}, found {SCHEMA - 1}."] == (
        again.notes
    )
    assert ["c0"] == [cell["key"] for cell in RunFolder.open(run.path).plan()["cells"]]


def test_a_damaged_plan_is_written_anew(tmp_path, plan):
    """Bytes that are no JSON, or a change after it was written, lose the plan and nothing else."""
    run = RunFolder.prepare(tmp_path / "run")
    run.write("", plan("c0"))
    with run.lease():
        pass
    path = run.path / "plan.json"
    for damaged in (b"\xff", path.read_bytes().replace(b'"r"', b'"q"')):
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=r"is no plan that can be used: .*Run the suite again"):
            RunFolder.open(run.path)
        again = RunFolder.prepare(run.path)
        again.write("", plan("c0"))
        assert ["plan.json is written anew"] == [note.partition(":")[0] for note in again.notes]
        assert "r" == RunFolder.open(run.path).plan()["id"]


def test_a_later_plan_is_left_as_it_is(tmp_path, plan):
    """A later version of the program knows better what is in it."""
    run = RunFolder.prepare(tmp_path / "run")
    run.write("", plan() | {"schema": SCHEMA + 1})
    before = (run.path / "plan.json").read_bytes()
    with pytest.raises(StoreError, match=f"schema {SCHEMA} at most, found {SCHEMA + 1}"):
        RunFolder.prepare(run.path)
    assert before == (run.path / "plan.json").read_bytes()


def test_environments_are_stored_once(run):
    """Equal environments have equal ids."""
    first = run.add_environment({"python": "3.11"})
    assert first == run.add_environment({"python": "3.11"})
    second = run.add_environment({"python": "3.12"})
    assert {first: {"python": "3.11"}, second: {"python": "3.12"}} == run.environments()


def test_images_are_ordered_by_index_and_none_until_complete(run):
    """Shards may hold any indices; all of them must be there."""
    images = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)

    def shard(key, index):
        with run.artefacts.create("sample", key) as folder:
            content = {"images": images[index], "index": np.array(index, dtype=np.int64)}
            save_file(content, folder / "images.safetensors")

    shard("s0", [2, 3])
    assert run.images("c0") is None
    shard("s1", [1, 0])
    np.testing.assert_array_equal(images, run.images("c0"))
    with pytest.raises(StoreError, match="expected a cell 'c9'"):
        run.images("c9")


HOLDER = """
import sys
from pathlib import Path
from tfq_bench.store.run import RunFolder
with RunFolder.open(Path(sys.argv[1])).lease():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lease_is_refused_while_another_process_holds_it(run):
    """The message names the process; when it is killed, the lease is free."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert "held\n" == holder.stdout.readline()
        with pytest.raises(StoreError, match=f"in use by process {holder.pid}"), run.lease():
            pytest.fail("the lease was given twice")
        holder.kill()
    with run.lease():
        assert f"{os.getpid()}\n" == (run.path / "run.lock").read_text()


def test_the_store_needs_no_torch():
    """Reports and gates start without it."""
    code = (
        "import sys, tfq_bench.store.run, tfq_bench.store.frames, tfq_bench.store.records;"
        "print([m for m in ('torch', 'pandas', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout
