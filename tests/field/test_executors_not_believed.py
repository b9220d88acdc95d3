"""Executors that report what is not so, or nothing."""

import re

import pytest

from tfq_bench.cli import main
from tfq_bench.store.run import RunFolder

EXECUTORS = """
from tfq_bench import api

class Odd:
    def __init__(self, run, *, fault):
        self.fault = fault

    def run(self, tasks, work, *, start, done):
        fault = self.fault
        for number, task in enumerate(tasks):
            if fault == "lies" and task.stage == "quantize":
                done(Outcome(task=task))
                continue
            if number == 2 and fault == "early":
                return
            if number == 2 and fault == "raises":
                raise OSError("the cluster is gone")
            if number == 2 and fault == "loses":
                continue
            outcome = work(task)
            done(outcome)
            if fault == "twice":
                done(outcome)
                done(replace(outcome, reason="no, it failed"))
            if fault == "stranger":
                done(replace(outcome, task=replace(task, outputs=("0" * 64,))))

from dataclasses import replace
from tfq_bench.types.tasks import Outcome

@api.hookimpl
def tfq_executors():
    for fault in ("early", "raises", "loses", "twice", "stranger", "lies"):
        yield api.ExecutorProvider(
            name=fault, summary="", factory=f"{__name__}:Odd",
            options=(api.Option(name="fault", kind="str", default=fault, help="F."),))
"""


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("early", "the executor ended with 7 of 9 tasks never reported"),
        ("raises", "7 of 9 tasks never reported.*raised OSError: the cluster is gone"),
        ("loses", "the executor ended with 1 of 9 tasks never reported|started it before"),
        ("lies", "reports it as done, and its artefacts are not there|started it before quantize"),
        ("twice", None),
        ("stranger", None),
    ],
)
def test_executors_that_do_not_report(tiny_suite, plugin_host, tmp_path, capsys, fault, message):
    """Every task ends once: what was not reported failed, what was not given is not believed."""
    plugin_host.install("executors", EXECUTORS, distribution="executors-dist")
    suite, folder = tiny_suite(metrics=("bits",), images=2), tmp_path / "run"
    command = ["run", str(suite), "--run", str(folder), "--no-report"]
    code = main([*command, "--executor", fault])
    told = capsys.readouterr().out
    if message is None:
        assert 0 == code
    else:
        assert 3 == code
        assert re.search(message, told), told
        assert any(record.status == "failed" for record in RunFolder.open(folder).records())
    assert 0 == main(command)
    assert not [r for r in RunFolder.open(folder).records() if r.status == "failed"]
