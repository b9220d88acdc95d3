"""Lines for logs, a live line for terminals, and an estimate that rests on finished work."""

import io
from types import SimpleNamespace

import pytest

from tfq_bench.output import progress
from tfq_bench.output.progress import ProgressLines, duration
from tfq_bench.types.tasks import Outcome, Task


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.seconds)
    monkeypatch.delenv("CI", raising=False)
    return now


def lines(stream):
    """A watcher of a plan with one cell."""
    cell = SimpleNamespace(cell=SimpleNamespace(key="k", label="tiny / fp"))
    return ProgressLines(SimpleNamespace(cells=[cell]), stream)


def task(stage="lower", weight=1.0, shard=None):
    """A task of that cell."""
    return Task(stage=stage, cell="k", shard=shard, outputs=("o",), needs=(), weight=weight)


def test_a_line_per_task_with_the_time_left(clock):
    """A quarter of the work took ten seconds, so thirty are left."""
    stream = io.StringIO()
    watcher = lines(stream)
    tasks = (task(weight=1.0), task("sample", weight=3.0, shard=0))
    watcher.begin(tasks, 0)
    clock.seconds += 10
    watcher.done(Outcome(task=tasks[0]))
    clock.seconds += 30
    watcher.done(Outcome(task=tasks[1]))
    assert [
        "2 tasks to do",
        "[1/2] tiny / fp: lower (about 30 s left)",
        "[2/2] tiny / fp: sample, shard 0 (took 40 s in all)",
    ] == stream.getvalue().splitlines()


def test_nothing_is_estimated_from_a_hundredth_of_the_work(clock):
    """Four GPUs were told 33 hours after the first of 73 tasks, and took a quarter of one."""
    stream = io.StringIO()
    watcher = lines(stream)
    tasks = (task(weight=1.0), task("quantize", weight=1.0), task("sample", weight=98.0, shard=0))
    watcher.begin(tasks, 0)
    for one in tasks[:2]:
        clock.seconds += 10
        watcher.done(Outcome(task=one))
    assert [
        "[1/3] tiny / fp: lower",
        "[2/3] tiny / fp: quantize (about 16 min left)",
    ] == stream.getvalue().splitlines()[1:]


@pytest.mark.parametrize(
    ("todo", "finished", "text"),
    [
        (1, 4, "4 of 5 tasks are finished already"),
        (0, 4, "all 4 tasks are finished; nothing to compute"),
    ],
)
def test_a_run_that_goes_on_says_so(clock, todo, finished, text):
    """A user sees at once that nothing is computed again."""
    stream = io.StringIO()
    lines(stream).begin((task(),) * todo, finished)
    assert f"{text}\n" == stream.getvalue()


def test_failures_are_told_with_their_reason_and_consequences(clock):
    """What failed has its reason, what depended on it has the cause."""
    stream = io.StringIO()
    watcher = lines(stream)
    tasks = (task(), task("sample", shard=1), task("evaluate"))
    watcher.begin(tasks, 0)
    watcher.done(Outcome(task=tasks[0], reason="boom"))
    watcher.done(Outcome(task=tasks[1], reason="boom", blocked=tasks[0]))
    assert [
        "[1/3] tiny / fp: lower FAILED: boom",
        "[2/3] tiny / fp: sample, shard 1 not started, because lower of tiny / fp failed",
    ] == stream.getvalue().splitlines()[1:]


def test_no_control_characters_outside_a_terminal(clock):
    """A log file gets one line per ended task and nothing in between."""
    stream = io.StringIO()
    watcher = lines(stream)
    watcher.begin((task(),), 0)
    watcher.start(task())
    clock.seconds += 10
    watcher.progress(task(), 0.5, "sampling")
    watcher.close()
    assert "1 task to do\n" == stream.getvalue()


def test_a_terminal_shows_the_running_task(clock):
    """The live line is drawn over, at most five times a second, and taken away at the end."""
    stream = Terminal()
    watcher = lines(stream)
    watcher.begin((task(),), 0)
    clock.seconds += 10
    watcher.progress(task(), 0.5, "sampling")
    watcher.progress(task(), 0.6, "sampling")
    shown = stream.getvalue()
    assert "[1/1] tiny / fp: sampling 50% (about 10 s left)" in shown
    assert "60%" not in shown
    watcher.close()
    assert stream.getvalue().endswith("\r\x1b[2K")


def test_continuous_integration_gets_plain_lines(clock, monkeypatch):
    """CI logs pretend to be terminals and keep every redrawn line."""
    monkeypatch.setenv("CI", "true")
    stream = Terminal()
    watcher = lines(stream)
    watcher.begin((task(),), 0)
    watcher.progress(task(), 0.5, "sampling")
    assert "1 task to do\n" == stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5400, "1.5 h")]
)
def test_durations(seconds, text):
    """Seconds, minutes or hours, whichever reads best."""
    assert text == duration(seconds)
