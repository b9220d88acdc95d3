"""Killed at any moment, the same command goes on, and the records are those of a quiet run."""

import signal

import pytest

from tfq_bench.store.run import RunFolder
from tfq_bench.types.tasks import STAGES

KILLER = """
import os, signal
from pathlib import Path

WHERE, DONE = os.environ.get("KILL_AT"), Path(__file__).with_suffix(".done")

def die():
    DONE.write_text("")
    os.kill(os.getpid(), signal.SIGKILL)

if WHERE and role in ("run", "worker") and not DONE.exists():
    from tfq_bench.store import artefacts, records

    seal, write = artefacts.write_manifest, records._write

    def sealing(folder, stage, key):
        if stage == WHERE:
            die()
        seal(folder, stage, key)

    def writing(descriptor, content, offset):
        if WHERE == "records":
            write(descriptor, content[: len(content) // 2], offset)
            die()
        write(descriptor, content, offset)

    artefacts.write_manifest, records._write = sealing, writing
"""


@pytest.fixture
def killer(sabotage):
    """The process of a run, or of a worker, is killed once, where KILL_AT says."""
    sabotage(KILLER)


def half_written(folder):
    """Artefacts that were begun and not finished."""
    return list(folder.glob("artefacts/*/.new-*"))


@pytest.fixture(scope="module")
def kept():
    """What is made once for all tests of the module, by name."""
    return {}


@pytest.fixture
def quiet(kept, run, facts):
    """The facts of a run that nobody disturbs."""
    if "quiet" not in kept:
        kept["quiet"] = facts(run("quiet"))
    return kept["quiet"]


@pytest.fixture
def start(fork, run_command):
    """A function that starts the run `killed` apart: its exit code, and what it told."""

    def start(*arguments, **env):
        return fork(*run_command("killed"), *arguments, **env)[:2]

    return start


@pytest.mark.parametrize("stage", STAGES)
def test_killed_in_the_midst_of_a_stage(killer, start, run, facts, quiet, tmp_path, stage):
    """Everything is written but the seal; the next run removes it and makes it anew."""
    assert -signal.SIGKILL == start(KILL_AT=stage)[0]
    abandoned = half_written(tmp_path / "killed")
    assert [stage] == [path.parent.name for path in abandoned]
    before = {path: path.stat().st_mtime_ns for path in _sealed(tmp_path / "killed")}
    resumed = run("killed")
    assert [] == half_written(resumed.path)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert quiet == facts(resumed)


def test_killed_while_records_are_written(killer, start, run, facts, quiet, tmp_path):
    """Half a line is left; it is removed, and what it said is written again."""
    assert -signal.SIGKILL == start(KILL_AT="records")[0]
    assert not (tmp_path / "killed" / "records.jsonl").read_bytes().endswith(b"\n")
    resumed = run("killed")
    assert quiet == facts(resumed)
    assert b"" == resumed.records_path.read_bytes().rpartition(b"\n")[2]


def test_a_worker_that_is_killed(killer, start, run, facts, quiet, tmp_path):
    """Its cell fails with the signal, the run ends with 3, and the same command mends it."""
    code, told = start("--executor", "process", KILL_AT="calibrate")
    assert 3 == code
    assert "worker lost: its process was ended by signal 9" in told
    assert "Traceback" not in told
    failed = [r for r in RunFolder.open(tmp_path / "killed").records() if r.status == "failed"]
    assert ["calibrate"] == [record.stage for record in failed]
    assert quiet == facts(run("killed"))


def test_workers_end_with_the_run(sabotage, start, run, facts, quiet, tmp_path):
    """A run that is killed while its workers work leaves no process that writes on."""
    sabotage(PARRICIDE)
    code, _ = start("--executor", "process", "--slots", "2", KILL_PARENT="lower")
    assert -signal.SIGKILL == code
    assert quiet == facts(run("killed"))


PARRICIDE = """
import os, signal, time
from pathlib import Path

WHERE, DONE = os.environ.get("KILL_PARENT"), Path(__file__).with_suffix(".done")

if WHERE and role == "worker" and not DONE.exists():
    from tfq_bench.store import artefacts

    seal = artefacts.write_manifest

    def sealing(folder, stage, key):
        if stage == WHERE:
            DONE.write_text("")
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
            raise SystemExit("still alive")
        seal(folder, stage, key)

    artefacts.write_manifest = sealing
"""


def _sealed(folder):
    return list(folder.glob("artefacts/*/*/manifest.json"))
