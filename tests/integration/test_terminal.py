"""What a user sees of a whole run, in a process of its own."""

OBSERVER = """
from tfq_bench.api import hookimpl

@hookimpl
def tfq_cell_started(cell):
    raise ValueError("boom")
"""


def test_a_quiet_run_shows_progress_and_nothing_else(apart):
    """Libraries write no lines of their own, neither from Python nor from C++."""
    ended = apart("run")
    assert 0 == ended.returncode
    first, *rest = ended.stderr.splitlines()
    assert f"{len(rest)} tasks to do" == first
    assert [] == [line for line in rest if not line.startswith("[")]
    assert [] == [line for line in ended.stdout.splitlines() if "Warning" in line]


def test_an_observer_that_raises_is_one_line(plugin_host, apart):
    """A fault that harms nothing is named once per event, without a traceback."""
    plugin_host.install("observer", OBSERVER, distribution="observer-dist")
    ended = apart("run")
    assert 0 == ended.returncode
    lines = [line for line in ended.stderr.splitlines() if line.startswith("tfq-bench: ")]
    assert 2 == len(lines)
    assert all("observer tfq_cell_started" in line for line in lines)
    assert all(line.endswith("ValueError: boom") for line in lines)
    assert "Traceback" not in ended.stderr
