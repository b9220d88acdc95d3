"""Functions, modes and flags that a plugin replaces in its process compute nobody else's results.

Speed-ups are often installed so: `torch.nn.functional.scaled_dot_product_attention = mine`.
"""

import copy
import dataclasses
import functools
import json
import math
import os
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tfq_bench.cli import main
from tfq_bench.errors import BrokenPlugin
from tfq_bench.pipeline.guard.fingerprint import Fingerprint
from tfq_bench.pipeline.guard.functions import Functions, unreplaced
from tfq_bench.pipeline.guard.settings import own_settings
from tfq_bench.store.run import RunFolder
from tfq_bench.testing import tiny
from tfq_bench.testing.tiny import TinyModel, load_tiny


def wrapped(owner, name):
    """Replaces a function by one that copies its names, as decorators do."""
    old = getattr(owner, name)
    setattr(owner, name, functools.wraps(old)(lambda *a, **k: old(*a, **k)))


def named(path):
    """The module or class of this name."""
    return sys.modules.get(path) or getattr(named(path.rpartition(".")[0]), path.rpartition(".")[2])


REPLACED = {
    "torch.nn.functional.scaled_dot_product_attention": lambda: wrapped(
        functional, "scaled_dot_product_attention"
    ),
    "torch.nn.functional.conv2d": lambda: wrapped(functional, "conv2d"),
    "torch.nn.functional.silu": lambda: setattr(functional, "silu", functional.relu),
    "torch.round": lambda: setattr(torch, "round", torch.floor),
    "torch.Tensor.round": lambda: setattr(torch.Tensor, "round", torch.Tensor.floor),
    "torch.nn.modules.module.Module.__call__": lambda: wrapped(torch.nn.Module, "__call__"),
    "torch.nn.modules.linear.Linear.forward": lambda: wrapped(torch.nn.Linear, "forward"),
    "torch.nn.modules.conv.Conv2d.__call__": lambda: setattr(
        torch.nn.Conv2d, "__call__", lambda *_: None
    ),
    "json.dumps": lambda: wrapped(json, "dumps"),
    "math.sqrt": lambda: setattr(math, "sqrt", abs),
    "numpy.mean": lambda: wrapped(np, "mean"),
    "tfq_bench.testing.tiny.TinyModel.decode": lambda: wrapped(TinyModel, "decode"),
    "tfq_bench.testing.tiny.load_tiny": lambda: setattr(tiny, "load_tiny", abs),
}


@pytest.mark.parametrize("name", REPLACED)
def test_what_was_replaced_is_named_and_put_back(name):
    """Functions, methods, and new methods that hide inherited ones."""
    functions = Functions()
    owner, _, attribute = name.rpartition(".")
    before = vars(named(owner)).get(attribute)
    REPLACED[name]()
    assert [name] == [found.partition(" ")[0] for found in functions.restore()]
    assert before is vars(named(owner)).get(attribute)
    assert [] == functions.restore()


def test_libraries_may_wrap_their_own():
    """Importing torch's compiler wraps `torch.manual_seed`, which changes nothing."""
    functions = Functions()
    old = torch.manual_seed
    namespace = {"__name__": "torch._compile", "old": old}
    exec("def inner(seed): return old(seed)", namespace)
    try:
        torch.manual_seed = namespace["inner"]
        assert [] == functions.restore()
        assert torch.manual_seed is namespace["inner"]
    finally:
        torch.manual_seed = old


def test_an_import_that_replaces_is_told():
    """Models, metrics and backends are imported while the plan is made."""
    old = functional.silu
    with pytest.raises(BrokenPlugin, match=r"torch\.nn\.functional\.silu by "), unreplaced():
        functional.silu = lambda x: x * 0.5
    assert functional.silu is old


QUANTIZER = """
import torch.nn.functional as F
from tfq_bench import api
from tfq_bench.quant.rtn import RoundToNearest

class Fast(RoundToNearest):
    def quantize(self, loaded, data, **more):
        old = F.conv2d
        F.conv2d = lambda *a, **k: old(*a, **k) * 0.9
        return super().quantize(loaded, data, **more)

@api.hookimpl
def tfq_quantizers():
    yield api.QuantizerProvider(
        name="fast", summary="", factory=f"{__name__}:Fast", wbits=(8,), abits=(8,)
    )
"""
SUITE = """
schema = 1
suite = {{name = "fast", threads = 1}}
sampling = {{sampler = "ddim", steps = 1, images = 2, batch = 2, shard = 2}}
calibration = {{images = 1, batch = 1}}
model = [{{name = "tiny"}}]
quantizer = [{{name = "fp"}}, {bad}{{name = "rtn", wbits = [4], abits = [8]}}]
backend = [{{name = "simulate"}}]
metric = [{{name = "paired"}}]
"""


def test_whoever_replaces_a_function_fails_alone(plugin_host, tmp_path, capsys):
    """Its cell says which; the cell behind it has the numbers of a run without it."""
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    plugin_host.install("fast", QUANTIZER, distribution="fast-dist")
    numbers = {}
    for name, bad in {"good": "", "bad": '{name = "fast"}, '}.items():
        (tmp_path / "suite.toml").write_text(SUITE.format(bad=bad))
        folder = tmp_path / name
        code = main(["run", str(tmp_path / "suite.toml"), "--run", str(folder), "--no-report"])
        assert (3 if bad else 0) == code
        records = RunFolder.open(folder).records()
        numbers[name] = {
            (r.label, r.metric.definition.name): r.metric.value for r in records if r.metric
        }
        failed = [r for r in records if r.status == "failed"]
    (failure,) = failed
    assert " fast " in failure.label
    assert "functions were replaced (torch.nn.functional.conv2d by " in failure.reason
    assert numbers["good"] == numbers["bad"]


class _Halves(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def put(owner, name, value):
    """A function that sets an attribute."""
    return lambda: setattr(owner, name, value)


KEPT = [torch.inference_mode()]
"""Ends when the object does."""

SETTINGS = {
    "modes": lambda: _Halves().__enter__(),
    "modes of functions": lambda: _Calls().__enter__(),
    "inference mode": lambda: KEPT[-1].__enter__(),
    "numbers below the smallest normal one": lambda: torch.set_flush_denormal(True),
    "kernels of attention": lambda: torch.backends.cuda.enable_flash_sdp(False),
    "float32 precision": put(torch.backends, "fp32_precision", "tf32"),
    "float32 products": lambda: torch.set_float32_matmul_precision("medium"),
    "mkldnn.matmul precision": put(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
    "nnpack.enabled": lambda: torch.backends.nnpack.set_flags(False),
    "sums of float16 products": put(
        torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction", False
    ),
    "float16 accumulation": put(torch.backends.cuda.matmul, "allow_fp16_accumulation", True),
    "engine of quantized operations": put(torch.backends.quantized, "engine", "onednn"),
    "types of autocast": lambda: torch.set_autocast_dtype("cpu", torch.float16),
    "umask": lambda: os.umask(0o777),
    "cores": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_set_back_and_named(name, caplog):
    """Those that change results, and those that change times."""
    with own_settings(0):
        SETTINGS[name]()
    (told,) = [one.getMessage() for one in caplog.records if "left changed" in one.getMessage()]
    assert name.removesuffix(" of functions") in told
    caplog.clear()
    with own_settings(0):
        pass
    assert not caplog.records


CHANGES = {
    "sampler.timesteps": lambda one: setattr(one.sampler, "timesteps", (3, 2, 1)),
    "sampler.table": lambda one: one.sampler.table.__setitem__(0, 5.0),
    "sampler.schedule.clip": lambda one: setattr(one.sampler.schedule, "clip", 3.0),
    "sampler.schedule.times.2": lambda one: one.sampler.schedule.times.pop(),
    "sampler.step": lambda one: setattr(one.sampler, "step", lambda *_: None),
    "sampler.final": lambda one: setattr(one.sampler, "final", one.sampler.initial),
    "model.predict": lambda one: setattr(one.model, "predict", lambda *_: None),
    "model.dtype": lambda one: setattr(one.model, "dtype", torch.float64),
    "model.given.scale": lambda one: setattr(one.model.given, "scale", 3.0),
    "model.given.order": lambda one: setattr(one.model.given, "order", 2),
    "model.given.inner.name": lambda one: setattr(one.model.given.inner, "name", "b"),
    "model.given.turn": lambda one: setattr(one.model.given, "turn", abs),
    "model.decoder.weight": lambda one: one.model.decoder.weight.data.mul_(2),
    "network.attention.scale": lambda one: setattr(one.network.attention, "scale", 2.0),
    "network.attention.heads": lambda one: setattr(one.network.attention, "heads", 2),
    "network.attention.processor": lambda one: setattr(one.network.attention, "processor", Slots()),
    "network.conv_in.stride": lambda one: setattr(one.network.conv_in, "stride", (2, 2)),
    "network.conv_in.forward_hooks": lambda one: one.network.conv_in.register_forward_hook(print),
    "network.conv_in.extra": lambda one: one.network.conv_in.register_buffer(
        "extra", torch.ones(1)
    ),
    "loaded.sampler": lambda one: object.__setattr__(one, "sampler", copy.copy(one.sampler)),
}


class Slots:
    """An object without a `__dict__`."""

    __slots__ = ("name",)

    def __init__(self, name="a"):
        self.name = name


@dataclasses.dataclass
class Given:
    """What a model may hold."""

    scale: float = 2.0
    order: int = 1
    inner: Slots = dataclasses.field(default_factory=Slots)
    turn: object = math.sqrt


class Schedule:
    """What a sampler may hold."""

    def __init__(self):
        self.clip = 1.0
        self.times = [3, 2, 1]


class Alive(TinyModel):
    """Counts, caches and loads late, as models do."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.by_name = {"decode": 0}
        self.late = None
        self.known = {}

    @functools.cached_property
    def table(self):
        """Made when it is first read."""
        return torch.ones(3)

    def use(self, index):
        """Does all that."""
        self.calls += 1
        self.by_name["decode"] += 1
        self.known.clear()
        self.known[index] = self.table * index
        if self.late is None:
            self.late = torch.nn.Linear(2, 2)


@pytest.mark.parametrize("name", CHANGES)
def test_all_that_a_model_holds_counts(name):
    """Whatever it is and however deep, without a list of names."""
    loaded = load_tiny(steps=2)
    loaded.model.given, loaded.model.decoder = Given(), torch.nn.Linear(2, 2)
    loaded.sampler.schedule, loaded.sampler.table = Schedule(), np.zeros(3)
    attention = loaded.network.attention
    attention.scale, attention.heads, attention.processor = 1.0, 1, None
    before = Fingerprint(loaded)
    assert [] == before.changes()
    CHANGES[name](loaded)
    assert [name] == before.changes()


def test_what_a_model_does_itself_is_no_change():
    """Counts of calls, caches, and what is loaded when first needed; that counts from then on."""
    loaded = dataclasses.replace(load_tiny(steps=2), model=Alive())
    before = Fingerprint(loaded)
    for index in range(3):
        loaded.model.use(index)
        assert [] == before.changes()
    loaded.model.late.weight.data.add_(1)
    loaded.model.table.add_(1)
    assert ["model.late.weight", "model.table"] == sorted(before.changes())


def test_code_of_classes_is_watched_wherever_they_were_written():
    """In a function, and with what a class holds besides methods."""

    class Local(TinyModel):
        factor = 2.0

        @functools.cached_property
        def table(self):
            return 1

        def decode(self, latents):
            return super().decode(latents)

    loaded = dataclasses.replace(load_tiny(steps=2), model=Local())
    functions = Functions()
    functions.add_classes(Fingerprint(loaded).classes)
    before = dict(vars(Local))
    Local.factor, Local.decode, Local.table = 3.0, TinyModel.decode, property(lambda _: 2)
    names = [found.partition(" ")[0].rpartition(".")[2] for found in functions.restore()]
    assert ["decode", "factor", "table"] == names
    assert before == dict(vars(Local))
