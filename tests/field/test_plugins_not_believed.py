"""Plugins that leave something behind, or report what is not so: nobody else's numbers change."""

import os
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from tfq_bench.cli import main
from tfq_bench.errors import StoreError
from tfq_bench.executors.base import Queue
from tfq_bench.pipeline.tasks import Outcome, Task
from tfq_bench.store.run import RunFolder

BAD = """
import gc, logging, os, random, signal, sys, warnings
import numpy as np
import torch
from torch import nn
from tfq_bench import api
from tfq_bench.quant.rtn import RoundToNearest


def weights(loaded):
    for p in loaded.network.parameters():
        p.data.mul_(0.5)
def one_weight(loaded):
    loaded.network.first.conv1.weight.data[3, 2, 1, 0] += 0.05
def rearranged(loaded):
    w = loaded.network.attention.out.weight
    w.data.copy_(w.data.flip(0))
def numpy_view(loaded):
    loaded.network.conv_in.bias.numpy()[0] = 1.0
def hook(loaded):
    loaded.network.conv_out.register_forward_hook(lambda m, a, y: y * 1.1)
def pre_hook(loaded):
    loaded.network.register_forward_pre_hook(lambda m, a: (a[0] * 0.9, *a[1:]))
def double(loaded):
    loaded.network.double()
def train(loaded):
    loaded.network.train()
def gradients(loaded):
    loaded.network.requires_grad_(True)
def layer(loaded):
    loaded.network.second.conv2 = nn.Conv2d(16, 16, 3, padding=1)
def forward(loaded):
    loaded.network.forward = lambda x, timestep: x
def class_forward(loaded):
    kind = type(loaded.network.first)
    old = kind.forward
    kind.forward = lambda self, x, time: old(self, x, time) * 1.1
def epsilon(loaded):
    loaded.network.first.norm1.eps = 0.5
def buffer(loaded):
    loaded.network.register_buffer("extra", torch.ones(1))
def sampler(loaded):
    loaded.sampler._kept[1] *= 0.9
def model(loaded):
    loaded.model._weights["conv_in.bias"] += 1

def threads(loaded): torch.set_num_threads(2)
def default_dtype(loaded): torch.set_default_dtype(torch.float64)
def grad_mode(loaded): torch.set_grad_enabled(False)
def global_hook(loaded): nn.modules.module.register_module_forward_hook(
    lambda m, a, y: y * 1.01 if isinstance(y, torch.Tensor) else y)
def seeds(loaded): torch.manual_seed(7); np.random.seed(7); random.seed(7)
def numpy_errors(loaded): np.seterr(all="raise")
def environment(loaded): os.environ["OMP_NUM_THREADS"] = "64"
def directory(loaded): os.chdir("/")
def path(loaded): sys.path.insert(0, "/nowhere")
def warned(loaded): warnings.simplefilter("error")
def recursion(loaded): sys.setrecursionlimit(300)
def silence(loaded): logging.disable(logging.CRITICAL)
def collector(loaded): gc.disable()
def handler(loaded): signal.signal(signal.SIGTERM, signal.SIG_IGN)
def stdout(loaded): sys.stdout = open(os.devnull, "w")
def deterministic(loaded): torch.use_deterministic_algorithms(True)
def benchmark(loaded): torch.backends.cudnn.benchmark = True
def tf32(loaded): torch.backends.cudnn.allow_tf32 = True
def anomaly(loaded): torch.autograd.set_detect_anomaly(True)
def device(loaded): torch.set_default_device("meta")

NETWORK = (weights, one_weight, rearranged, numpy_view, hook, pre_hook, double, train, gradients,
    layer, forward, class_forward, epsilon, buffer, sampler, model)
PROCESS = (threads, default_dtype, grad_mode, global_hook, seeds, numpy_errors, environment,
    directory, path, warned, recursion, silence, collector, handler, stdout, deterministic,
    benchmark, tf32, anomaly, device)


class Bad(RoundToNearest):
    def __init__(self, *, scheme, fault, when):
        super().__init__(scheme=scheme)
        self.fault, self.when = fault, when

    def calibration_needs(self, loaded, *, images):
        needs = super().calibration_needs(loaded, images=images)
        if self.when == "calibrate":
            globals()[self.fault](loaded)
        return needs

    def quantize(self, loaded, data, **more):
        state = super().quantize(loaded, data, **more)
        if self.when in ("quantize", "raise"):
            globals()[self.fault](loaded)
        if self.when == "raise":
            raise ZeroDivisionError("and now this")
        return state


@api.hookimpl
def tfq_quantizers():
    yield api.QuantizerProvider(
        name="bad", summary="", factory=f"{__name__}:Bad", wbits=(8,), abits=(8,),
        options=(api.Option(name="fault", kind="str", default="weights", help="F."),
            api.Option(name="when", kind="str", default="quantize", help="W.")),
    )
"""
NETWORK = (
    *("weights", "one_weight", "rearranged", "numpy_view", "hook", "pre_hook", "double", "train"),
    *("gradients", "layer", "forward", "class_forward", "epsilon", "buffer", "sampler", "model"),
)
PROCESS = (
    *("threads", "default_dtype", "grad_mode", "global_hook", "seeds", "numpy_errors"),
    *("environment", "directory", "path", "warned", "recursion", "silence", "collector"),
    *("handler", "stdout", "deterministic", "benchmark", "tf32", "anomaly", "device"),
)

SUITE = """\
schema = 1
suite = {{name = "bad", threads = 1}}
sampling = {{sampler = "ddim", steps = 2, images = 2, batch = 2, shard = 2}}
calibration = {{images = 2, batch = 2}}
model = [{{name = "tiny"}}]
quantizer = [{{name = "fp"}}, {bad}{{name = "rtn", wbits = [4], abits = [8]}}]
backend = [{{name = "simulate"}}]
metric = [{{name = "paired"}}]
"""


@pytest.fixture
def run(plugin_host, tmp_path, capsys):
    """A function that runs a suite, with a fault or without: exit code, numbers, failures."""
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    plugin_host.install("bad", BAD, distribution="bad-dist")

    def start(fault=None, when="quantize"):
        bad = f'{{name = "bad", fault = "{fault}", when = "{when}"}}, ' if fault else ""
        suite = tmp_path / "bad.toml"
        suite.write_text(SUITE.format(bad=bad))
        folder = tmp_path / (fault or "good")
        code = main(["run", str(suite), "--run", str(folder), "--no-report"])
        records = RunFolder.open(folder).records()
        numbers = {
            (r.label, r.metric.definition.name): r.metric.value
            for r in records
            if r.metric is not None and " bad " not in r.label
        }
        logs = "".join(path.read_text() for path in (folder / "logs").iterdir())
        return code, numbers, [r for r in records if r.status == "failed"], logs

    return start


@pytest.fixture(scope="module")
def expected():
    """What the others have when there is no bad plugin, filled by the first test that asks."""
    return {}


@pytest.mark.parametrize("fault", NETWORK)
def test_whoever_changes_the_network_fails_alone(run, expected, fault):
    """Its cell says what was changed and stores nothing; the others have the numbers they had."""
    if not expected:
        expected.update(run()[1])
    code, numbers, (failed,), _ = run(fault)
    assert (3, "quantize") == (code, failed.stage)
    assert "the full-precision model was changed (" in failed.reason
    assert " bad " in failed.label
    assert expected == numbers


@pytest.mark.parametrize("when", ["calibrate", "raise"])
def test_whenever_it_does(run, expected, when):
    """Already when it is asked what it needs, or before it fails with something else."""
    if not expected:
        expected.update(run()[1])
    code, numbers, (failed,), _ = run("weights", when)
    assert 3 == code
    assert "the full-precision model was changed (" in failed.reason
    assert ("ZeroDivisionError: and now this" in failed.reason) == (when == "raise")
    assert expected == numbers


@pytest.mark.parametrize("fault", PROCESS)
def test_settings_of_the_process_are_set_back(run, expected, fault):
    """The others have the numbers they had, and the log names what was left behind."""
    if not expected:
        expected.update(run()[1])
    folder, signals = Path.cwd(), sys.stdout
    environment, where = dict(os.environ), list(sys.path)
    code, numbers, failed, logs = run(fault)
    assert (0, []) == (code, failed)
    assert expected == numbers
    assert (folder, signals) == (Path.cwd(), sys.stdout)
    assert (environment, where) == (dict(os.environ), sys.path)
    assert torch.float32 == torch.get_default_dtype()
    assert torch.is_grad_enabled()
    assert "warn" == np.geterr()["divide"]
    assert not any(entry[0] == "error" and entry[1] is None for entry in warnings.filters[:1])
    if fault not in ("seeds", "warned", "silence"):
        assert "settings of the process were left changed" in logs


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
from tfq_bench.pipeline.tasks import Outcome

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


def chain(number):
    """Tasks of as many cells: one calibration, and three tasks each that follow one another."""

    def task(name, *needs):
        return Task(stage="sample", cell="c", shard=0, outputs=(name,), needs=needs, weight=1.0)

    tasks = [task("first")]
    for index in range(number):
        tasks.append(task(f"{index}a", "sample-first"))
        tasks.append(task(f"{index}b", f"sample-{index}a"))
        tasks.append(task(f"{index}c", f"sample-{index}b"))
    return tuple(tasks)


class Counted(dict):
    """A dictionary that counts how often it is asked."""

    asked = 0

    def __getitem__(self, key):
        Counted.asked += 1
        return super().__getitem__(key)

    def get(self, key, default=None):
        Counted.asked += 1
        return super().get(key, default)


def test_the_queue_does_not_slow_down():
    """16,000 tasks take as many steps each as 1,600 do, and come in order."""
    asked = []
    for number in (533, 5333):
        tasks = chain(number)
        queue = Queue(tasks)
        queue._place, queue._followers = Counted(queue._place), Counted(queue._followers)
        Counted.asked = 0
        order = []
        while (task := queue.take()) is not None:
            order.append(task)
            queue.finish(Outcome(task=task))
            assert [] == queue.blocked()
        assert list(tasks) == order
        asked.append(Counted.asked / len(tasks))
    assert asked[0] == asked[1]


def test_one_failure_blocks_all_that_follow():
    """Each is told once, with the first cause, in order."""
    tasks = chain(5000)
    queue = Queue(tasks)
    first = queue.take()
    queue.finish(Outcome(task=first, reason="boom"))
    blocked = queue.blocked()
    assert list(tasks[1:]) == [outcome.task for outcome in blocked]
    assert {("boom", "sample-first")} == {(o.reason, o.blocked.id) for o in blocked}
    assert (None, []) == (queue.take(), queue.blocked())


def test_the_store_is_not_left_open(tmp_path):
    """What is raised before an artefact is sealed leaves none behind."""
    folder = RunFolder.create(tmp_path / "run", "", {"schema": 1, "cells": []})

    def refuse():
        raise StoreError("changed")

    folder.artefacts.before_sealing = refuse
    with pytest.raises(StoreError, match="changed"), folder.artefacts.create("lower", "k") as path:
        (path / "x").write_text("x")
    assert not folder.artefacts.has("lower", "k")
    assert [] == [p for p in (tmp_path / "run" / "artefacts").rglob("*") if p.is_file()]
