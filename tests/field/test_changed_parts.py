"""Whoever changes a part of model, sampler or libraries is named; nobody else's numbers change."""

import json

import pytest

from tfq_bench.cli import main
from tfq_bench.store.run import RunFolder

from .bad_suite import SUITE

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
    import tfq_bench.quant.sampling as sampling
    old = sampling.noise
    sampling.noise = lambda *a, **k: old(*a, **k) * 0.5
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
    **{"psnr": "tfq_bench.metrics.paired.psnr by ", "noise": "tfq_bench.quant.sampling.noise by "},
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
