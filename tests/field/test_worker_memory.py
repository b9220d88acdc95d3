"""Memory that runs out in a worker costs its cell, not the run (F14)."""

import itertools
import json
import os
import resource
import subprocess
import sys

import pytest

from tfq_bench.errors import BrokenPlugin
from tfq_bench.host.inspection import out_of_memory


def chained(*errors):
    """The last error, each raised from the one before."""
    for cause, error in itertools.pairwise(errors):
        error.__cause__ = cause
    return errors[-1]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), True),
        (ImportError("x.so: cannot allocate memory in static TLS block"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (chained(MemoryError(), BrokenPlugin("model cannot say what it is")), True),
        (chained(OSError(12, "Cannot allocate memory"), RuntimeError(), BrokenPlugin("x")), True),
        (ImportError("No module named 'x'"), False),
        (RuntimeError("cannot allocate memory, says a plugin"), False),
        (BrokenPlugin("memory"), False),
    ],
)
def test_memory_is_told_from_other_faults(error, expected):
    """Also behind other errors; a sentence of a plugin is none."""
    assert expected == out_of_memory(error)


@pytest.mark.parametrize("megabytes", [400, 1500])
def test_a_worker_with_too_little_memory_fails_its_task(machine, suite_text, megabytes):
    """The outcome says so and is not fatal: the plan is right, and other tasks may need less."""
    (machine.cwd / "suite.toml").write_text(suite_text)
    assert 0 == machine.run("run", "suite.toml", "--run", "here", "--no-report").returncode
    (cell, *_) = json.loads((machine.cwd / "here" / "plan.json").read_text())["cells"]
    size = megabytes << 20
    out, end = os.pipe()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tfq_bench", "cell", "here", cell["key"]),
            *("--outcome", str(end), "--die-with", str(os.getpid())),
        ],
        cwd=machine.cwd,
        env=machine.environment,
        capture_output=True,
        text=True,
        pass_fds=(end,),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size)),
    )
    os.close(end)
    with os.fdopen(out) as said:
        outcome = json.load(said)
    assert (3, False) == (done.returncode, outcome["fatal"]), done.stderr
    assert "memory ran out before the task began" in outcome["reason"]
    assert "Traceback" not in done.stderr
