"""Processes on slots, one a cell; a worker that is lost fails its task with words."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from tfq_bench.errors import TfqError
from tfq_bench.executors.process import ProcessExecutor
from tfq_bench.executors.worker import cell_command
from tfq_bench.store.artefacts import ArtefactStore

WORKER = """
import json, os, pathlib, signal, sys, time
name, report, tasks = sys.argv[1:]
here = pathlib.Path(__file__).parent
(here / f"{name}.begin").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
if name.startswith("waits"):
    while not (here / "other.begin").exists():
        time.sleep(0.01)
if name == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if name == "silent":
    print("last words", file=sys.stderr)
    sys.exit(9)
reason = "boom" if name in ("fails", "fatal") else None
reason = "x" * 1_000_000 if name == "talkative" else reason
if name == "half":
    os.write(int(report), b'{"reason": nu')
    sys.exit(1)
pipe = open(int(report), "w")
print(json.dumps({"reason": reason, "fatal": name == "fatal"}), file=pipe, flush=True)
for line in open(int(tasks)):
    (here / f"{name}.told").open("a").write(f"{os.getpid()} {line}")
    if name == "tired":
        os.kill(os.getpid(), signal.SIGKILL)
    reason = "boom" if name == "once" else None
    print(json.dumps({"reason": reason, "fatal": False}), file=pipe, flush=True)
"""


@pytest.fixture
def executor(tmp_path, monkeypatch):
    """A function that makes an executor whose children are a small script, not the tool."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    real = subprocess.Popen

    def popen(command, **options):
        report, tasks = (command[command.index(name) + 1] for name in ("--outcome", "--tasks"))
        metrics = [word.removeprefix("--metric=") for word in command if "--metric=" in word]
        make.started.append(metrics[0] if metrics else command[5])
        return real([sys.executable, str(script), make.started[-1], report, tasks], **options)

    def make(slots=1, **options):
        return ProcessExecutor(tmp_path, slots=slots, **options)

    make.started = []  # names of cells and metrics
    monkeypatch.setattr(subprocess, "Popen", popen)
    return make


def test_outcomes_come_back(executor, task, life):
    """A child's reason is the task's, and blocks what needs it."""
    events = life(executor(), [task("good"), task("fails"), task("never", "fails")])
    assert [
        ("done", "good", None, None),
        ("done", "fails", "boom", None),
        ("done", "never", "boom", "fails"),
    ] == [event for event in events if event[0] == "done"]
    assert ("start", "never") not in events


def test_a_worker_that_is_killed_fails_its_task_only(executor, task, life):
    """Out of memory, for instance: the signal is named, and the next task runs."""
    events = life(executor(), [task("killed"), task("good")])
    ended = next(event for event in events if event[:2] == ("done", "killed"))
    assert ended[2].startswith("worker lost: its process was ended by signal 9 (SIGKILL)")
    assert ("done", "good", None, None) in events


def test_a_worker_without_an_outcome(executor, task, life, tmp_path):
    """Its last words are in the cell's log."""
    events = life(executor(), [task("silent")])
    assert "worker lost: its process ended with code 9 and left no outcome" == events[-1][2]
    assert "last words" in (tmp_path / "logs" / "silent.log").read_text()


def test_a_crash_costs_one_metric(executor, task, life, monkeypatch):
    """The worker of an evaluation is lost: each metric without values gets one of its own."""
    judged = dataclasses.replace(
        task("killed"), stage="evaluate", outputs=("a", "b", "c"), metrics=("done", "silent", "ok")
    )
    monkeypatch.setattr(ArtefactStore, "has", lambda store, stage, key: key == "a")
    events = life(executor(), [judged])
    told = "metric 'silent' lost its worker: its process ended with code 9 and left no outcome"
    assert ("done", "killed", told, None) == events[-1]
    assert executor.started == ["killed", "silent", "ok"]


def test_half_an_outcome_is_none(executor, task, life):
    """A worker that was killed while it told how it went."""
    events = life(executor(), [task("half")])
    assert "worker lost: its process ended with code 1 and left no outcome" == events[-1][2]


def test_an_outcome_of_any_length_comes_through(executor, task, life):
    """A pipe holds little, and a worker that waits for room would never end."""
    assert "x" * 1_000_000 == life(executor(), [task("talkative")])[-1][2]


def test_a_fatal_outcome_ends_the_run(executor, task, life):
    """A damaged run folder would fail every other task too."""
    with pytest.raises(TfqError, match="boom"):
        life(executor(), [task("fatal"), task("good")])


def test_slots_run_side_by_side(executor, task, life):
    """With two slots a task that waits for another one ends; with one slot it never would."""
    events = life(executor(slots=2), [task("waits"), task("other")])
    assert {("start", "waits"), ("start", "other")} == set(events[:2])
    assert {("done", "waits", None, None), ("done", "other", None, None)} == set(events[2:])


def test_one_slot_runs_one_task(executor, task, life):
    """A task starts when the one before has ended."""
    assert ["start", "done"] * 3 == [
        event[0] for event in life(executor(), [task("a"), task("b"), task("c")])
    ]


def test_an_exclusive_task_runs_alone(executor, task, life):
    """Nothing starts beside a timing, and it starts beside nothing."""
    tasks = [task("a"), task("timing", exclusive=True), task("b"), task("c")]
    events = [event[:2] for event in life(executor(slots=3), tasks)]
    at = events.index(("start", "timing"))
    assert [("start", "a"), ("done", "a")] == events[:at]
    assert ("done", "timing") == events[at + 1]


def of_one_cell(task, name, stages=("calibrate", "quantize", "lower")):
    """Tasks of a cell that follow one another."""
    tasks, before = [], ()
    for stage in stages:
        one = dataclasses.replace(task(name), stage=stage, needs=before)
        tasks.append(one)
        before = (one.id,)
    return tasks


def test_tasks_of_a_cell_share_a_process(executor, task, life, tmp_path):
    """The first comes with its command, the others by the pipe; other cells have their own."""
    cells = [*of_one_cell(task, "one"), *of_one_cell(task, "two")]
    events = life(executor(slots=2), cells)
    assert 6 == sum(event[0] == "done" and event[2] is None for event in events)
    assert ["one", "two"] == sorted(executor.started)
    told = [line.split(maxsplit=1) for line in (tmp_path / "one.told").read_text().splitlines()]
    assert 1 == len({process for process, _ in told})
    assert [{"stage": stage, "shard": None} for stage in ("quantize", "lower")] == [
        json.loads(line) for _, line in told
    ]


def test_on_one_slot_a_cell_is_finished_before_the_next(executor, task, life):
    """Else each task would need a process, whatever order they were planned in."""
    one, two = of_one_cell(task, "one"), of_one_cell(task, "two")
    planned = [cell for pair in zip(one, two, strict=True) for cell in pair]
    events = life(executor(), planned)
    assert ["one"] * 3 + ["two"] * 3 == [event[1] for event in events if event[0] == "start"]
    assert ["one", "two"] == executor.started


def test_what_follows_a_failure_begins_anew(executor, task, life):
    """A task that fails ends its process: what the failure left there reaches nothing."""
    shards = [
        dataclasses.replace(task("once"), stage="sample", shard=shard, outputs=(str(shard),))
        for shard in range(3)
    ]
    events = [event for event in life(executor(), shards) if event[0] == "done"]
    assert [None, "boom", None] == [event[2] for event in events]
    assert ["once", "once"] == executor.started


def test_a_process_that_ends_at_its_second_task(executor, task, life):
    """That task is the one that is lost."""
    events = [e for e in life(executor(), of_one_cell(task, "tired")) if e[0] == "done"]
    assert (None, True, True) == (
        events[0][2],
        events[1][2].startswith("worker lost: its process was ended by signal 9"),
        events[2][2] == events[1][2],
    )


def test_no_process_waits_beside_a_timing(executor, task, life, tmp_path):
    """What waits may hold memory; it is ended before, on this device."""
    tasks = [task("a"), *of_one_cell(task, "timing", ("lower", "measure"))]
    tasks[-1] = dataclasses.replace(tasks[-1], exclusive=True, needs=(*tasks[-1].needs, "lower-a"))
    processes = []

    class Noting(ProcessExecutor):
        def _at_work(self, task, device):
            worker = super()._at_work(task, device)
            processes.append((task.stage, [w.task.cell for w in self._idle]))
            return worker

    executor()
    life(Noting(tmp_path, slots=2), tasks)
    assert ("measure", []) == processes[-1]


@pytest.fixture
def seen(tmp_path):
    """A function: the CUDA_VISIBLE_DEVICES of a child, by the name of what it worked on."""
    return lambda name: (tmp_path / f"{name}.begin").read_text()


def test_a_child_sees_one_device(executor, task, life, seen, monkeypatch):
    """Each one sees the device that its task was placed on, whatever it is called."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,MIG-7f")
    life(executor(slots=2, devices=("3", "MIG-7f")), [task("waits"), task("other")])
    assert ("3", "MIG-7f") == (seen("waits"), seen("other"))
    assert "3,MIG-7f" == os.environ["CUDA_VISIBLE_DEVICES"]


def test_without_devices_a_child_sees_what_its_parent_sees(executor, task, life, seen, monkeypatch):
    """Nothing is placed on a GPU unless devices are given."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    life(executor(slots=2), [task("a")])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    life(executor(slots=2), [task("b")])
    assert ("none", "1,2") == (seen("a"), seen("b"))


def test_timings_of_two_devices_run_side_by_side(executor, task, life, seen):
    """Each waits for the other one, and both end."""
    tasks = [task("waits", exclusive=True), task("other", exclusive=True)]
    events = life(executor(slots=2, devices=("0", "1")), tasks)
    assert [("start", "waits"), ("start", "other")] == events[:2]
    assert {"0", "1"} == {seen("waits"), seen("other")}


def test_a_timing_shares_its_device_with_nothing(executor, task, life, seen):
    """With two slots a device it waits until one is idle, and what follows it runs elsewhere."""
    tasks = [task("waits"), task("a"), task("timing", exclusive=True), task("other")]
    events = [event[:2] for event in life(executor(slots=4, devices=("0", "1")), tasks)]
    assert [("start", "waits"), ("start", "a"), ("done", "a"), ("start", "timing")] == events[:4]
    assert ("0", "1", "1") == (seen("waits"), seen("a"), seen("timing"))
    assert "0" == seen("other")


def test_a_lost_child_gives_its_device_back(executor, task, life, seen, monkeypatch):
    """The next task runs there; a metric that is tried alone is tried on the same one."""
    monkeypatch.setattr(ArtefactStore, "has", lambda store, stage, key: False)
    lost = task("killed", exclusive=True)
    judged = dataclasses.replace(
        task("silent"), stage="evaluate", outputs=("a", "b"), metrics=("half", "fine")
    )
    events = life(executor(slots=1, devices=("5",)), [lost, judged, task("good")])
    assert ["killed", "silent", "good"] == [event[1] for event in events if event[0] == "done"]
    assert {"5"} == {seen(name) for name in ("killed", "silent", "half", "fine", "good")}
    assert not any("5" in event[2] for event in events if event[0] == "done" and event[2])


@pytest.mark.parametrize("devices", [(), ("0", "1")])
def test_children_are_ended_when_the_run_is(executor, task, tmp_path, devices):
    """An interrupted run leaves no process behind."""
    children = []

    def interrupt(outcome):
        raise KeyboardInterrupt

    class Noting(ProcessExecutor):
        def _spawn(self, *arguments):
            worker = super()._spawn(*arguments)
            children.append(worker.process)
            return worker

    with pytest.raises(KeyboardInterrupt):
        Noting(tmp_path, slots=2, devices=devices).run(
            (task("waits"), task("good")), None, start=lambda _: None, done=interrupt
        )
    assert 2 == len(children)
    for child in children:
        assert child.returncode is not None
        with pytest.raises(ProcessLookupError):
            os.kill(child.pid, 0)


def test_the_command_is_what_a_person_would_type(task, tmp_path):
    """A task is named by run, cell, stage and shard."""
    one = task("key")
    shard = dataclasses.replace(one, stage="sample", shard=3)
    assert ["cell", "run", "key", "--stage", "lower"] == cell_command("run", one)
    assert ["--stage", "sample", "--shard", "3"] == cell_command("run", shard)[3:]
    judged = dataclasses.replace(one, stage="evaluate", metrics=("psnr", "--odd"))
    assert ["--stage", "evaluate", "--metric=--odd"] == cell_command("run", judged, "--odd")[3:]
