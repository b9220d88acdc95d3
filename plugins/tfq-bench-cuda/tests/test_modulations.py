"""What a timestep does to blocks, computed for all of them together: DiT and PixArt."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tfq_bench.pipeline.lower import lowering_facts
from tfq_bench.quant import TemporalCache
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench_cuda.backend import CudaBackend
from tfq_bench_cuda.kernels.reference import ReferenceKernels

from .text_networks import OpaqueKernels, load, make_state, predict

NAMED = "torch s8 stacked linear"


def lowered_twice(family: str, state: Any = None, **options: Any) -> tuple[Any, Any, Any]:
    """A network, lowered with shared modulations and without."""
    loaded = load(family, dtype=options.pop("dtype", torch.float32))
    state = state or make_state(loaded, wbits=options.pop("wbits", 8))
    backends = [
        CudaBackend(batch=2, kernels=ReferenceKernels(), without=without, **options)
        for without in ((), ("modulations",))
    ]
    return loaded, *(backend.lower(loaded, state) for backend in backends)


def images(count: int = 2) -> Tensor:
    """Inputs of a network."""
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("weights", ["int8", "packed"])
@pytest.mark.parametrize("family", ["dit", "pixart"])
def test_predictions_are_those_without(family, weights):
    """The same bits in float32, at every step, for one image and for three."""
    loaded, shared, single = lowered_twice(family, weights=weights, wbits=4)
    for index in range(3):
        for count in (2, 1, 3):
            for lowered in (shared, single):
                lowered.step.set(index)
            found = predict(loaded, shared.network, images(count))
            assert torch.equal(predict(loaded, single.network, images(count)), found)


def test_in_16_bit_only_the_last_rounding_is_left_out():
    """Modulations are not rounded to the network's type before they are used."""
    loaded, shared, single = lowered_twice("dit", dtype=torch.bfloat16)
    found, expected = (predict(loaded, one.network, images()) for one in (shared, single))
    assert not torch.equal(expected, found)
    apart = (expected - found).double().square().mean().sqrt()
    assert float(apart / expected.double().square().mean().sqrt()) < 2.0**-6


def test_layers_are_listed_as_they_run():
    """Three products for all blocks, no other of these layers, and the block runs its own."""
    loaded, shared, single = lowered_twice("dit")
    for lowered in (shared, single):
        lowered.executed.clear()
        predict(loaded, lowered.network, images())
    assert 2 * 3 == shared.executed[NAMED]
    assert 2 * 3 == [use.kernel for use in shared.kernels].count(NAMED)
    # The first block's embedding is asked for once more; it was kept.
    assert sum(single.executed.values()) == sum(shared.executed.values()) + 2
    blocks = [use for use in shared.details["blocks"] if use["kind"] == "BasicTransformerBlock"]
    assert [9, 9] == [len(use["layers"]) for use in blocks]
    assert not any(use["remarks"] for use in blocks)


@pytest.mark.parametrize("family", ["dit", "pixart"])
def test_the_lower_stage_is_passed(family):
    """Every layer is still a module that can be watched."""
    loaded = load(family)
    state = make_state(loaded)
    lowered = CudaBackend(batch=2, kernels=OpaqueKernels()).lower(loaded, state)
    facts = lowering_facts(
        loaded, state, lowered, simulate(loaded, state), execution="lowered", batches=[3]
    )
    assert len(state.layers) == facts["layers"]["checked"]


def blocks_of(network: nn.Module) -> list[Any]:
    """Its fused passes."""
    return [block.forward for block in network.transformer_blocks]


def test_computed_once_and_anew_for_each_call():
    """Not by each block; for what changed in place, another step, and a block called twice."""
    _, lowered, _ = lowered_twice("dit")
    first, second = blocks_of(lowered.network)
    timestep, labels = torch.tensor([500, 20]), torch.tensor([1, 4])
    counts = [0]

    def take(block: Any, t: Tensor = timestep) -> Tensor:
        before = lowered.executed.get(NAMED, 0)
        found = first.shared.take(block, t, labels, torch.float32)
        counts.append((lowered.executed[NAMED] - before) // 6)
        return found.clone()

    with torch.no_grad():
        one, other = take(first), take(second)
        assert [1, 0] == counts[1:]
        assert not torch.equal(one, other)
        timestep += 1  # while nothing is held, and while the second block's is
        changed = take(first)
        timestep -= 1
        assert torch.equal(other, take(second))
        assert not torch.equal(one, changed)
        assert torch.equal(one, take(first))
        lowered.step.set(2)
        assert not torch.equal(other, take(second))
        lowered.step.set(0)
        assert torch.equal(other, take(second))
        assert torch.equal(other, take(second))
        assert torch.equal(one, take(first, timestep.clone()))
        assert [1, 1, 0, 1, 1, 1, 1] == counts[3:]


def test_another_timestep_gives_another_embedding():
    """What DiT's output layer reads is never that of a call before."""
    loaded, shared, single = lowered_twice("dit")
    x = images()
    condition = loaded.model.conditions(range(2), device="cpu")
    for t in (900, 100):
        given = torch.full((2,), t)
        found, expected = (
            loaded.model.predict(one.network, x, given, condition) for one in (shared, single)
        )
        assert torch.equal(expected, found)
    embedding = shared.network.transformer_blocks[0].norm1.emb
    plain = single.network.transformer_blocks[0].norm1.emb
    labels = torch.tensor([1, 0])
    for _ in range(2):
        found = embedding(given, labels, hidden_dtype=torch.float32)
        assert torch.equal(plain(given, labels, hidden_dtype=torch.float32), found)


def changed(state: Any, ending: str, change: Any) -> Any:
    """The state with other layers where a name ends so; None leaves a layer out."""
    layers = {
        name: change(layer) if name.endswith(ending) else layer
        for name, layer in state.layers.items()
    }
    kept = {name: layer for name, layer in layers.items() if layer is not None}
    return dataclasses.replace(state, layers=kept)


def floating(layer: Any) -> Any:
    """The layer with activations in float."""
    return dataclasses.replace(
        layer, parts=tuple(dataclasses.replace(part, activation=None) for part in layer.parts)
    )


def test_layers_without_a_kernel_leave_each_block_its_own():
    """The reason stands with the blocks; predictions are right."""
    loaded = load("dit")
    state = changed(make_state(loaded), "transformer_blocks.1.norm1.linear", floating)
    _, shared, single = lowered_twice("dit", state)
    found, expected = (predict(loaded, one.network, images()) for one in (shared, single))
    assert torch.equal(expected, found)
    for use in shared.details["blocks"]:
        (remark,) = use["remarks"]
        assert remark.startswith("timestep and class are embedded in each block: layer 'linear'")
    assert [6, 6] == [len(use["layers"]) for use in shared.details["blocks"]]


@pytest.mark.parametrize("complete", [True, False])
def test_tables_of_the_embedding_are_looked_up_for_all(complete):
    """A state's temporal cache; where one lacks steps each block is on its own."""
    loaded = load("dit")
    names = [f"transformer_blocks.{i}.norm1.emb.timestep_embedder.linear_2" for i in range(2)]
    topology = dataclasses.replace(
        loaded.topology,
        time_features=tuple(names),
        time_mlp=tuple(name.replace("linear_2", "linear_1") for name in names),
    )
    loaded = dataclasses.replace(loaded, topology=topology)
    cache = {
        name: TemporalCache(
            name=name,
            bits=16,
            values=torch.randn(3, 32, generator=torch.Generator().manual_seed(i)).half(),
            scale=None,
            zero_point=None,
            selected=torch.tensor([True, complete, True]),
        )
        for i, name in enumerate(names)
    }
    state = make_state(loaded)
    if complete:
        state = changed(state, "timestep_embedder.linear_1", lambda _: None)
        state = changed(state, "timestep_embedder.linear_2", lambda _: None)
    state = dataclasses.replace(state, cache=cache)
    lowered = [
        CudaBackend(batch=2, kernels=ReferenceKernels(), without=without).lower(loaded, state)
        for without in ((), ("modulations",))
    ]
    for index in range(3):
        for one in lowered:
            one.step.set(index)
        found, expected = (predict(loaded, one.network, images()) for one in lowered)
        assert torch.equal(expected, found)
    assert complete == (not lowered[0].details["blocks"][0]["remarks"])
    assert complete == (NAMED in lowered[0].executed)
