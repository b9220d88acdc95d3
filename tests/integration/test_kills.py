"""Killed at random instants, again and again: the run that goes on ends as an undisturbed one.

20 instants in the short form, `TFQ_KILLS` in a longer one, half of them in each of two tests. An
instant is a share of what a quiet run writes, not a time: the n-th call of the operating system's
functions that change a disk.
"""

import os
import random
import time

import pytest

KILLS = int(os.environ.get("TFQ_KILLS", "20"))

ASSASSIN = """
import os, signal

LIMIT, COUNT = int(os.environ.get("KILL_NUMBER", "0")), os.environ.get("KILL_COUNT")
GROUP = os.environ.get("KILL_GROUP")
WORKER = os.environ.get("KILL_WORKER")
calls = 0


def counted(real):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == LIMIT:
            with open(os.environ["KILL_DONE"], "a") as file:
                file.write("x")
            if GROUP:
                os.killpg(0, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call


if (COUNT or LIMIT) and role == ("worker" if WORKER else "run"):
    for name in ("fsync", "replace", "rename", "mkdir", "rmdir", "unlink", "open"):
        real = getattr(os, name)
        setattr(os, name, counted(real))
        if real in os.supports_dir_fd:  # or shutil would remove folders in another way
            os.supports_dir_fd.add(getattr(os, name))
    if COUNT:
        import atexit
        atexit.register(lambda: open(COUNT, "w").write(str(calls)))
"""


@pytest.fixture
def begin(begin, sabotage):
    """`begin` with a process that is killed where the environment says."""
    sabotage(ASSASSIN)
    return begin


def alive(group):
    """Whether a process of the group lives on; it is given a moment to end."""
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("stream", [0, 1])
def test_fuzz_killed_at_any_instant(begin, numbers, sealed, scratch, tmp_path, stream):
    """Equal numbers, nothing finished done twice, no process, lock or scratch left behind."""
    assert 0 == begin(tmp_path / "quiet", KILL_COUNT=str(tmp_path / "count"))[0]
    expected, calls = numbers(tmp_path / "quiet"), int((tmp_path / "count").read_text())
    assert calls > 100
    assert expected
    source = random.Random(stream)
    kills = rounds = 0
    folder = tmp_path / "round-0"
    while kills < KILLS // 2:
        process = ("--executor", "process") if kills % 10 == 4 else ()
        worker = bool(process) and (kills // 10 + stream) % 2 == 0  # else the process of the run
        env = {
            "KILL_NUMBER": str(source.randrange(1, calls // 8 if worker else calls + 1)),
            "KILL_DONE": str(tmp_path / "done"),
            **({"KILL_GROUP": "1"} if source.random() < 0.5 else {}),
            **({"KILL_WORKER": "1"} if worker else {}),
        }
        before = sealed(folder)
        code, told, group = begin(folder, *process, **env)
        done = tmp_path / "done"
        killed = done.exists()
        done.unlink(missing_ok=True)
        assert not alive(group), "a process lives on"
        assert "Traceback" not in told, told
        assert before.items() <= sealed(folder).items(), "a finished stage was done again"
        kills += killed
        if killed and kills % 3:
            continue  # killed again in the same folder
        held = sealed(folder)
        code, told, _ = begin(folder)
        assert 0 == code, told
        assert held.items() <= sealed(folder).items(), "a finished stage was done again"
        assert expected == numbers(folder)
        assert [] == [p for p in folder.rglob(".*") if p.is_file() or p.name.startswith(".new-")]
        assert [] == list((folder / "artefacts" / "checkpoints").glob("*"))
        assert [] == list(scratch.glob("tfq-bench-*"))
        rounds += 1
        folder = tmp_path / f"round-{rounds}"
    assert rounds >= KILLS // 2 // 3
