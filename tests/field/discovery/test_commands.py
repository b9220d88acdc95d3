"""Discovery as commands use it: who may interrupt, and who pays."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def test_a_time_limit_that_is_none_is_refused(marked):
    """In a sentence with the variable's name."""
    for wrong in ("soon", "nan"):
        done = marked.run("plugins", "list", TFQ_BENCH_PLUGIN_TIMEOUT=wrong)
        assert 2 == done.returncode
        assert "TFQ_BENCH_PLUGIN_TIMEOUT should be a positive number" in done.stderr
        assert 0 == marked.imports()


@pytest.mark.parametrize("code", ["import time; time.sleep(1e6)", "while True: pass"])
def test_the_user_s_interruption_stops_the_command(machine, code):
    """130, a sentence, and no process is left."""
    path = machine.cwd / "pid"
    machine.plugin(
        "slow",
        f"import os, pathlib\npathlib.Path({str(path)!r}).write_text(str(os.getpid()))\n{code}",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "tfq_bench", "plugins", "list"],
        env={**machine.environment, "TFQ_BENCH_PLUGIN_TIMEOUT": "600"},
        cwd=machine.cwd,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=machine.interruptible,
    )
    while not (path.exists() and path.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert 130 == process.returncode
    assert "interrupted" in told
    with pytest.raises(ProcessLookupError):
        os.kill(int(path.read_text()), 0)


def test_a_killed_command_leaves_no_child(machine):
    """Not even one that ignores every signal."""
    path = machine.cwd / "pid"
    machine.plugin(
        "slow",
        f"import os, pathlib\npathlib.Path({str(path)!r}).write_text("
        "str(os.getpid()))\nimport time; time.sleep(1e6)",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "tfq_bench", "plugins", "list"],
        env={**machine.environment, "TFQ_BENCH_PLUGIN_TIMEOUT": "600"},
        cwd=machine.cwd,
    )
    while not (path.exists() and path.read_text()):
        time.sleep(0.05)
    process.kill()
    process.wait()
    child = int(path.read_text())
    for _ in range(200):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return  # dead, and not yet collected by whoever adopted it
        time.sleep(0.05)
    raise AssertionError("the child is still there")


def test_hostile_plugins_cost_a_run_nothing(machine, suite_text):
    """Planned, run with workers, and judged beside plugins that exit, hang, crash and print."""
    machine.plugin("ends", "import os; os._exit(0)")
    machine.plugin("hangs", "while True: pass")
    machine.plugin("crashes", "import ctypes; ctypes.string_at(0)")
    machine.plugin("prints", "print('{')")
    (machine.cwd / "suite.toml").write_text(suite_text)
    limit = {"TFQ_BENCH_PLUGIN_TIMEOUT": "3"}
    done = machine.run("plan", "suite.toml", "--json", **limit)
    assert 2 == len(json.loads(done.stdout)["cells"])
    for command in (
        "run suite.toml --run here --no-report",
        "baseline save here -o base.json",
        "gate here --baseline base.json",
    ):
        done = machine.run(*command.split(), **limit)
        assert 0 == done.returncode, f"{command}: {done.stderr}"
        assert "" != done.stdout


def test_workers_do_not_try_again(marked, suite_text):
    """Neither a plugin that is sound, nor one that fails, nor one that ends the process."""
    path = marked.cwd / "others"
    mark = f"open({str(path)!r}, 'a').write('tried\\n')\n"
    marked.plugin("ends", mark + "import os; os._exit(0)")
    marked.plugin("fails", mark + "raise RuntimeError('no')")
    (marked.cwd / "suite.toml").write_text(
        suite_text.replace('{name = "rtn", wbits = [8], abits = 8}', "")
    )
    done = marked.run(
        "run", "suite.toml", "--run", "here", "--no-report", "--executor", "process", timeout=300
    )
    assert 0 == done.returncode, done.stderr
    assert 1 == marked.imports()
    assert 2 == path.read_text().count("tried")
