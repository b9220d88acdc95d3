"""Up blocks whose residual blocks read an input and a skip connection without a copy of both."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tfq_bench.pipeline.lower import lowering_facts
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.testing.by_hand import quantized_layer
from tfq_bench_cuda.backend import CudaBackend
from tfq_bench_cuda.blocks import up
from tfq_bench_cuda.blocks.up import UpPass
from tfq_bench_cuda.kernels.reference import ReferenceKernels

from .text_networks import OpaqueKernels, load, make_state, predict

FIRST = "up_blocks.0.resnets.0"


def split_state(loaded: Any) -> Any:
    """The state with a residual block that has scales of their own for both parts."""
    state = make_state(loaded)
    layers = dict(state.layers)
    for name in (f"{FIRST}.conv1", f"{FIRST}.conv_shortcut"):
        module = loaded.network.get_submodule(name)
        layers[name] = quantized_layer(name, module.float(), -3.0, 4.0, split=64)
    return dataclasses.replace(state, layers=layers)


def lowered_twice(loaded: Any, state: Any) -> list[Any]:
    """A network that reads both parts, and one that concatenates."""
    return [
        CudaBackend(batch=2, kernels=ReferenceKernels(), without=without).lower(loaded, state)
        for without in ((), ("concatenations",))
    ]


def images(count: int = 2) -> Tensor:
    """Inputs of a network."""
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_predictions_are_those_of_the_copy(family):
    """The same bits at every step and in another batch, split layers among them."""
    loaded = load(family)
    both, copied = lowered_twice(loaded, split_state(loaded))
    for block in both.network.up_blocks:
        assert isinstance(block.forward, UpPass)
    for index, count in ((0, 2), (1, 2), (2, 3)):
        for one in (both, copied):
            one.step.set(index)
        with torch.no_grad():
            found, expected = (
                predict(loaded, one.network, images(count)) for one in (both, copied)
            )
        assert torch.equal(expected, found)


class Given(TorchDispatchMode):
    """How many concatenations of images ran outside of the norms' reference."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ == "cat" and args[0][0].dim() == 4
        return func(*args, **(kwargs or {}))


def concatenations(loaded: Any, lowered: Any) -> int:
    """In one call."""
    with torch.no_grad(), Given() as given:
        predict(loaded, lowered.network, images())
    return given.count


def test_nothing_is_copied_unless_somebody_looks():
    """A hook on a residual block sees the concatenation, one on a layer the same numbers."""
    loaded = load("sd")
    both, copied = lowered_twice(loaded, make_state(loaded))
    assert [4, 0] == [concatenations(loaded, one) for one in (copied, both)]
    seen = []
    for name in (FIRST, "up_blocks.1.resnets.1.conv1"):
        handle = both.network.get_submodule(name).register_forward_pre_hook(
            lambda _, args: seen.append(args[0].shape[1])
        )
        assert 1 == concatenations(loaded, both)
        handle.remove()
    assert 128 == seen[0]
    assert 0 == concatenations(loaded, both)


def test_what_diffusers_does_with_the_copy_is_left_to_it():
    """FreeU changes both parts before they meet."""
    loaded = load("sd")
    both, copied = lowered_twice(loaded, make_state(loaded))
    with torch.no_grad():
        before = predict(loaded, both.network, images())
        for one in (both, copied):
            one.network.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
        found, expected = (predict(loaded, one.network, images()) for one in (both, copied))
    assert torch.equal(expected, found)
    assert not torch.equal(before, found)


def test_the_lower_stage_is_passed(monkeypatch):
    """Layers are watched, and the pass is taken where they are not."""
    loaded = load("sd")
    state = make_state(loaded)
    lowered = CudaBackend(batch=2, kernels=OpaqueKernels()).lower(loaded, state)
    taken = []
    original = up._called
    monkeypatch.setattr(up, "_called", lambda *args: taken.append(True) or original(*args))
    facts = lowering_facts(
        loaded, state, lowered, simulate(loaded, state), execution="lowered", batches=[3]
    )
    assert len(state.layers) == facts["layers"]["checked"]
    assert taken
