"""Plugins that leave something behind, or report what is not so: nobody else's numbers change."""

import json
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
from tfq_bench.store.run import RunFolder
from tfq_bench.types.tasks import Outcome, Task

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
    told = "functions were replaced" if fault == "class_forward" else "the full-precision model was"
    assert told in failed.reason
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


RICH = """
import numpy as np
from torch import nn
from tfq_bench import api
from tfq_bench.testing.tiny import TinyModel, TinySampler, _Attention


class Schedule:
    def __init__(self):
        self.clip = 1.5

class Sampler(TinySampler):
    def __init__(self, steps):
        super().__init__(steps, 0.0)
        self._schedule, self._table, self.calls = Schedule(), np.ones(steps), 0

    def step(self, state, prediction, index, noise):
        self.calls += 1
        made = super().step(state, prediction * float(self._table[index]), index, noise)
        return made.clamp(-self._schedule.clip, self._schedule.clip)

class Attention(_Attention):
    def forward(self, x):
        return super().forward(x) * self.scale / self.heads

class Model(TinyModel):
    gain = 1.0

    def __init__(self):
        super().__init__()
        self.calls, self._decoder, self._seen = 0, None, {}

    def load(self, *, device, dtype):
        network = super().load(device=device, dtype=dtype)
        network.attention.__class__ = Attention
        network.attention.scale, network.attention.heads = 1.0, 1
        return network

    def sampler(self, name, steps):
        return Sampler(steps)

    def predict(self, network, x, timestep, condition):
        self.calls += 1
        self._seen[int(timestep[0])] = float(timestep[0])
        return super().predict(network, x, timestep, condition) * self.gain

    def decode(self, latents):
        if self._decoder is None:
            self._decoder = nn.Identity()
        return super().decode(self._decoder(latents))


@api.hookimpl
def tfq_models():
    yield api.ModelProvider(
        name="rich", summary="", factory=f"{__name__}:Model", samplers=("ddim",), gmac=0.001
    )
"""
OTHERS = """
import numpy as np
import torch.nn.functional as F
from torch import nn
from tfq_bench import api
from tfq_bench.quant.rtn import RoundToNearest
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.testing.tiny import TinyModel


def decode(loaded):
    old = loaded.model.decode
    loaded.model.decode = lambda x: old(x) // 2
def predict(loaded):
    old = loaded.model.predict
    loaded.model.predict = lambda *a: old(*a) * 0.5
def step(loaded):
    old = loaded.sampler.step
    loaded.sampler.step = lambda *a: old(*a) * 0.9
def class_step(loaded):
    kind = type(loaded.sampler)
    old = kind.step
    kind.step = lambda self, *a: old(self, *a) * 0.9
def class_decode(loaded):
    kind = type(loaded.model)
    old = kind.decode
    kind.decode = lambda self, x: old(self, x) // 2
def base_decode(loaded):
    old = TinyModel.decode
    TinyModel.decode = lambda self, x: old(self, x) // 2
def call(loaded):
    type(loaded.network.first).__call__ = lambda self, *a: nn.Module.__call__(self, *a) * 1.1
def number_of_class(loaded): type(loaded.model).gain = 0.5
def scale(loaded): loaded.network.attention.scale = 0.5
def heads(loaded): loaded.network.attention.heads = 2
def table(loaded): loaded.sampler._table[:] = 0.5
def schedule(loaded): loaded.sampler._schedule.clip = 0.5
def timesteps(loaded): loaded.sampler.timesteps = tuple(t - 1 for t in loaded.sampler.timesteps)
def other_sampler(loaded):
    class Other(type(loaded.sampler)):
        def step(self, *a): return super().step(*a) * 0.9
    object.__setattr__(loaded, "sampler", Other(2))
def functional(loaded):
    old = F.silu
    F.silu = lambda x, *a, **k: old(x) * 1.1
def psnr(loaded):
    import tfq_bench.metrics.paired as paired
    paired.psnr = lambda a, b: np.full(len(a), 99.0)
def noise(loaded):
    import tfq_bench.pipeline.sample as sample
    old = sample.noise
    sample.noise = lambda *a, **k: old(*a, **k) * 0.5
def noise_of_seeds(loaded):
    import tfq_bench.seeds as seeds
    old = seeds.noise
    seeds.noise = lambda *a, **k: old(*a, **k) * 0.5


class Bad(RoundToNearest):
    def __init__(self, *, scheme, fault):
        super().__init__(scheme=scheme)
        self.fault = fault

    def quantize(self, loaded, data, **more):
        state = super().quantize(loaded, data, **more)
        globals()[self.fault](loaded)
        return state

class Backend:
    def check(self, *, device): pass
    def lower(self, loaded, state):
        made = simulate(loaded, state)
        loaded.network.conv_in.weight.data.mul_(0.5)
        return made

@api.hookimpl
def tfq_quantizers():
    yield api.QuantizerProvider(
        name="bad", summary="", factory=f"{__name__}:Bad", wbits=(8,), abits=(8,),
        options=(api.Option(name="fault", kind="str", default="decode", help="F."),),
    )
@api.hookimpl
def tfq_backends():
    yield api.BackendProvider(
        name="halves", summary="", factory=f"{__name__}:Backend", wbits=(4, 8), abits=(8,),
        devices=("cpu",), execution="simulated",
    )
"""
TOLD = {
    **dict.fromkeys(("decode", "predict"), "model.{fault})"),
    **{"step": "sampler.step)", "class_step": ".Sampler.step by ", "class_decode": ".Model.decode"},
    **{"base_decode": "tiny.TinyModel.decode by ", "call": "tiny._Residual.__call__ by "},
    **{"number_of_class": ".Model.gain)", "scale": "network.attention.scale)"},
    **{"heads": "network.attention.heads)", "table": "sampler._table)"},
    **{"schedule": "sampler._schedule.clip)", "timesteps": "sampler.timesteps)"},
    **{"other_sampler": "loaded.sampler", "functional": "torch.nn.functional.silu by "},
    **{"psnr": "tfq_bench.metrics.paired.psnr by ", "noise": "tfq_bench.pipeline.sample.noise by "},
    "noise_of_seeds": "tfq_bench.seeds.noise by ",
}
"""What the failed cell names, by fault."""


@pytest.fixture(scope="module")
def together():
    """Outcome of one run with all faults of `TOLD`, filled by the first test that asks."""
    return {}


@pytest.fixture
def run_rich(plugin_host, tmp_path, capsys):
    """A function that runs a suite over a model that counts and caches."""
    plugin_host.install("rich", RICH, distribution="rich-dist")
    plugin_host.install("others", OTHERS, distribution="others-dist")

    def start(name, bad="", backends='{name = "simulate"}'):
        text = SUITE.format(bad=bad).replace('{name = "tiny"}', '{name = "rich"}')
        suite, folder = tmp_path / f"{name}.toml", tmp_path / name
        suite.write_text(text.replace('{name = "simulate"}', backends))
        code = main(["run", str(suite), "--run", str(folder), "--no-report"])
        records = RunFolder.open(folder).records()
        numbers = {
            (r.label, r.metric.definition.name): r.metric.value
            for r in records
            if r.metric is not None
        }
        return code, numbers, [r for r in records if r.status == "failed"]

    return start


@pytest.mark.parametrize("fault", TOLD)
def test_whoever_changes_what_computes_fails_alone(run_rich, together, fault):
    """Each cell names what was its own doing, and the numbers of the others are as without it.

    Changed are methods of one object or of a class, numbers and tables that model and sampler hold,
    parts of the loaded model, and functions of others.
    """
    if not together:
        bad = "".join(f'{{name = "bad", fault = "{one}"}}, ' for one in TOLD)
        together["good"], together["bad"] = run_rich("good"), run_rich("bad", bad)
    code, numbers, failed = together["bad"]
    assert (0, [], 3, len(TOLD)) == (together["good"][0], together["good"][2], code, len(failed))
    assert together["good"][1] == numbers
    (reason,) = [
        record.reason
        for record in failed
        if json.loads(record.axes["quantizer_options"])["fault"] == fault
    ]
    assert TOLD[fault].format(fault=fault) in reason


def test_a_backend_that_changes_the_model_fails_alone(run_rich):
    """In `lower`; the same state through another backend has the numbers it would have had."""
    good = run_rich("good")[1]
    code, numbers, (failed,) = run_rich("bad", backends='{name = "halves"}, {name = "simulate"}')
    assert (3, "lower") == (code, failed.stage)
    assert "the full-precision model was changed (network.conv_in.weight)" in failed.reason
    assert good == numbers


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
    folder = RunFolder.prepare(tmp_path / "run")
    folder.write("", {"schema": 1, "cells": []})

    def refuse():
        raise StoreError("changed")

    folder.artefacts.before_sealing = refuse
    with pytest.raises(StoreError, match="changed"), folder.artefacts.create("lower", "k") as path:
        (path / "x").write_text("x")
    assert not folder.artefacts.has("lower", "k")
    assert [] == [p for p in (tmp_path / "run" / "artefacts").rglob("*") if p.is_file()]
