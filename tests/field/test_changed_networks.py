"""A quantizer that changes the network or the process: nobody else's numbers change."""

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from tfq_bench.cli import main
from tfq_bench.store.run import RunFolder

from .bad_suite import SUITE

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
