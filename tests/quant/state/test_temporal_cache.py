"""Cached projections give their row, cost what is stored, and spare what nobody reads."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tfq_bench.errors import LoweringError, QuantizationError
from tfq_bench.quant.bit_report import bit_report
from tfq_bench.quant.calibrate.temporal import temporal_features
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.quant.state.storage import load_state, save_state
from tfq_bench.quant.state.temporal_cache import CachedProjection, TemporalCache, unused_layers
from tfq_bench.types.networks import StepCursor

STEPS, CHANNELS = 6, 16
PROJECTIONS = ("first.time", "second.time")
TIME = {"time_mlp.0", "time_mlp.2", *PROJECTIONS}


def cache_of(name, selected=None, *, bits=8, scale_shape=(STEPS, 1), seed=0):
    """A cache of random codes (or float16 values), complete unless `selected` lists steps."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(STEPS, dtype=torch.bool)
    mask[list(range(STEPS)) if selected is None else selected] = True
    if bits == 16:
        values = torch.randn((STEPS, CHANNELS), generator=generator).half()
        return TemporalCache(
            name=name, bits=16, values=values, scale=None, zero_point=None, selected=mask
        )
    return TemporalCache(
        name=name,
        bits=bits,
        values=torch.randint(0, 2**bits, (STEPS, CHANNELS), generator=generator, dtype=torch.uint8),
        scale=torch.rand(scale_shape, generator=generator) + 0.1,
        zero_point=torch.randint(0, 2**bits, scale_shape, generator=generator, dtype=torch.int32),
        selected=mask,
    )


def with_cache(state, *caches):
    """`state` without what complete caches make superfluous."""
    held = {cache.name: cache for cache in caches}
    gone = {cache.name for cache in caches if cache.complete}
    if gone >= set(PROJECTIONS):
        gone |= TIME
    layers = {name: layer for name, layer in state.layers.items() if name not in gone}
    return replace(state, layers=layers, cache=held)


@pytest.fixture
def cached(round_to_nearest):
    """Makes an 8-bit state with the given caches."""
    return lambda *caches: with_cache(round_to_nearest(8, 8), *caches)


@pytest.mark.parametrize("scale_shape", [(STEPS, 1), (1, 1), (STEPS, CHANNELS), (1, CHANNELS)])
def test_values_are_scale_times_code_less_zero_point(scale_shape):
    """In every granularity of the scale."""
    cache = cache_of("p", scale_shape=scale_shape)
    expected = cache.scale.double() * (cache.values.double() - cache.zero_point.double())
    torch.testing.assert_close(cache.dequantized().double(), expected)


def test_one_row_serves_the_batch_or_each_sample_has_its_own():
    """The cursor holds one step for all, or one a sample; the others go to the layer itself."""
    cache, step, inner = cache_of("p", [0, 2]), StepCursor("cpu"), nn.Linear(3, CHANNELS)
    projection = CachedProjection(cache, inner, step)
    x, rows = torch.randn(4, 3), cache.dequantized()
    step.set(2)
    assert torch.equal(rows[2].expand(4, -1), projection(x))
    step.set(1)
    assert torch.equal(inner(x), projection(x))
    step.index = torch.tensor([0, 1, 2, 0])
    expected = torch.stack([rows[0], inner(x)[1], rows[2], rows[0]])
    torch.testing.assert_close(projection(x), expected)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bits": 9}, "2 to 8 or 16 bits"),
        ({"bits": 16}, "must be torch.float16"),
        ({"bits": 4}, r"lie in \[0, 15\]"),
        ({"scale": torch.ones(STEPS)}, "one of the shapes"),
        ({"scale": torch.zeros(STEPS, 1)}, "finite and positive"),
        ({"selected": torch.zeros(STEPS, dtype=torch.bool)}, "no step is selected"),
        ({"selected": torch.ones(2, dtype=torch.bool)}, r"bool \[6\]"),
    ],
)
def test_impossible_caches_are_refused(changed, said):
    """The message says what was expected."""
    with pytest.raises(QuantizationError, match=said):
        replace(cache_of("p"), **changed)


def test_state_lists_a_cached_layer_exactly_when_a_step_is_left_to_it(cached, round_to_nearest):
    """A complete cache beside the layer, and a partial one without it, are both refused."""
    state = round_to_nearest(8, 8)
    with pytest.raises(QuantizationError, match="covers 6 of 6 steps"):
        replace(state, cache={"first.time": cache_of("first.time")})
    without = {name: layer for name, layer in state.layers.items() if name != "first.time"}
    with pytest.raises(QuantizationError, match="covers 1 of 6 steps"):
        replace(state, layers=without, cache={"first.time": cache_of("first.time", [0])})
    with pytest.raises(QuantizationError, match="under its own name"):
        replace(state, cache={"other": cache_of("first.time", [0])})


def test_network_adds_exactly_the_cached_features(loaded, cached):
    """What the simulated projections give at step k is row k; other steps are the layer's."""
    whole, part = cache_of("first.time"), cache_of("second.time", [1, 4], seed=1)
    state = cached(whole, part)
    found = temporal_features(loaded, simulate(loaded, state))
    plain = temporal_features(loaded, simulate(loaded, replace(with_cache(state), cache={})))
    assert torch.equal(whole.dequantized(), found["first.time"])
    assert torch.equal(part.dequantized()[[1, 4]], found["second.time"][[1, 4]])
    assert torch.equal(plain["second.time"][[0, 2, 3, 5]], found["second.time"][[0, 2, 3, 5]])


def test_nothing_of_the_time_block_is_computed_when_all_is_cached(loaded, cached, inputs):
    """No time layer is left in the network, and the kernels that ran are those of the rest."""
    lowered = simulate(loaded, cached(*map(cache_of, PROJECTIONS)))
    loaded.model.predict(lowered.network, *inputs, {})
    assert not [
        name
        for name, module in lowered.network.named_modules()
        if isinstance(module, nn.Linear) and "time" in name
    ]
    assert {len(loaded.topology.layers) - len(TIME)} == set(lowered.executed.values())


def test_time_mlp_stays_while_one_projection_needs_it(loaded):
    """Only with every projection complete is it unused."""
    one = {"first.time": cache_of("first.time")}
    both = {**one, "second.time": cache_of("second.time")}
    partial = {**one, "second.time": cache_of("second.time", [3])}
    assert {"first.time"} == unused_layers(loaded.topology, one)
    assert {"first.time"} == unused_layers(loaded.topology, partial)
    assert TIME == unused_layers(loaded.topology, both)


def test_cache_of_a_stranger_is_refused(loaded, round_to_nearest):
    """Only what depends on the timestep alone may be looked up."""
    state = replace(round_to_nearest(8, 8), cache={"conv_in": cache_of("conv_in", [0])})
    with pytest.raises(LoweringError, match="depend on the timestep alone"):
        simulate(loaded, state)


@pytest.mark.parametrize("bits", [3, 8, 16])
@pytest.mark.parametrize("selected", [None, [1, 4]])
@pytest.mark.parametrize("scale_shape", [(STEPS, 1), (1, CHANNELS)])
def test_cache_survives_the_disk_and_counts_what_is_stored(
    cached, tmp_path, bits, selected, scale_shape
):
    """Selected rows come back bit for bit; `packed_bytes` is what the file holds."""
    before = cached(cache_of("first.time", selected, bits=bits, scale_shape=scale_shape))
    save_state(before, tmp_path)
    one, other = before.cache["first.time"], load_state(tmp_path).cache["first.time"]
    assert torch.equal(one.selected, other.selected)
    rows = one.selected
    assert torch.equal(one.dequantized()[rows], other.dequantized()[rows])
    stored = load_file(tmp_path / "tensors-0001.safetensors")
    held = sum(value.nbytes for name, value in stored.items() if "/cache/" in name)
    assert held == one.packed_bytes == other.packed_bytes
    assert before.packed_bytes == sum(value.nbytes for value in stored.values())


def test_bytes_count_the_cache_apart_and_dropped_layers_not(loaded, cached):
    """Bits and work are those of the layers that are left."""
    caches = [cache_of(name) for name in PROJECTIONS]
    state = cached(*caches)
    report = bit_report(loaded.network, loaded.topology, state)
    assert sum(cache.packed_bytes for cache in caches) == report.cache_bytes
    assert report.cache_bytes == report.bytes_by_role["temporal-cache"]
    assert {"time-mlp", "time-projection"}.isdisjoint(report.bytes_by_role)
    assert report.total_bytes == sum(report.bytes_by_role.values())
    assert state.packed_bytes == report.packed_bytes
    assert TIME == set(report.dropped)
    assert report.mean_weight_bits == 8
    assert pytest.approx(1.0) == report.mac_share[8, 8]
