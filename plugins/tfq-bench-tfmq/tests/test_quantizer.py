"""The quantizer on the tiny model: contracts, the ablation's variants, what ends in the state."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tfq_bench.api import QuantizationError, Scheme, Topology
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant import simulate, temporal_errors, temporal_features
from tfq_bench.seeds import generator
from tfq_bench.testing.contracts import QuantizerContract
from tfq_bench.testing.tiny import load_tiny
from tfq_bench_tfmq.presets import settle
from tfq_bench_tfmq.quantizer import Tfmq

W4A8 = Scheme(wbits=4, abits=8)
QUICK = {"preset": "quick", "iterations": 6, "tiar_iterations": 100, "samples": 3}


def ignore(fraction, text):
    """Progress that nobody looks at."""


def quantize(loaded, scheme=W4A8, **options):
    """The state of `tfmq` with few iterations."""
    quantizer = Tfmq(scheme=scheme, **(QUICK | options))
    needs = quantizer.calibration_needs(loaded, images=4)
    data = capture(loaded, needs, seed=1, batch=4, progress=ignore)
    return quantizer.quantize(loaded, data, generator=generator(0, "test"), progress=ignore)


def feature_errors(loaded, state):
    """Squared relative errors `[T, n]` of the features that the simulated network adds."""
    exact = temporal_features(loaded, loaded.network)
    found = temporal_features(loaded, simulate(loaded, state))
    return temporal_errors(exact, found).relative.square()


class TestPaper(QuantizerContract):
    schemes = (
        W4A8,
        Scheme(wbits=8, abits=8, policy="paper"),
        Scheme(wbits=4, abits=8, policy="uniform-io16"),
        Scheme(wbits=4, abits=32),
    )

    def make(self, scheme):
        return Tfmq(scheme=scheme, **QUICK)


class TestCode(QuantizerContract):
    schemes = (Scheme(wbits=4, abits=8, policy="code"),)

    def make(self, scheme):
        return Tfmq(scheme=scheme, method="cvpr24-code", **QUICK)


class TestSelect(QuantizerContract):
    schemes = (W4A8,)

    def make(self, scheme):
        return Tfmq(scheme=scheme, method="tpami25", cache_bits=6, **QUICK)


def _tables(state):
    return {name: len(layer.parts[0].activation.scale) for name, layer in state.layers.items()}


def test_paper_has_a_range_per_step_in_the_block_only():
    """FSC; everywhere else one range for all steps."""
    loaded = load_tiny(steps=5)
    state = quantize(loaded)
    temporal = {*loaded.topology.time_mlp, *loaded.topology.time_projections}
    assert temporal == {name for name, entries in _tables(state).items() if entries == 5}
    assert {5, 1} == set(_tables(state).values())
    assert not state.cache


def test_code_and_extension_have_a_range_per_step_everywhere():
    """Per-step parameters of every activation, as the released code behaves; so the extension."""
    for method in ("cvpr24-code", "tpami25"):
        assert {5} == set(_tables(quantize(load_tiny(steps=5), method=method)).values())


def test_block_reconstruction_alone_has_static_ranges():
    """The ablation's first row: no TIAR, no FSC."""
    state = quantize(load_tiny(steps=5), tiar=False, fsc=False)
    assert {1} == set(_tables(state).values())


def test_tiar_and_fsc_lower_the_features_error():
    """Each alone, and both together, against nearest rounding with static ranges."""
    loaded = load_tiny(steps=6)

    def error(tiar_iterations, fsc):
        state = quantize(
            loaded, tiar_iterations=tiar_iterations, fsc=fsc, scheme=Scheme(wbits=4, abits=5)
        )
        return float(feature_errors(loaded, state).mean())

    neither, tiar, fsc, both = error(0, False), error(200, False), error(0, True), error(200, True)
    assert tiar < neither
    assert fsc < neither
    assert both < min(tiar, fsc)


def test_cache_replaces_the_block():
    """Every projection is looked up, the block's layers are gone, and 16 bits are nearly exact."""
    loaded = load_tiny(steps=5)
    state = quantize(loaded, maintenance="cache", cache_bits=16)
    temporal = {*loaded.topology.time_mlp, *loaded.topology.time_projections}
    assert set(loaded.topology.time_projections) == set(state.cache)
    assert not temporal & {*state.layers, *state.exempt}
    assert float(feature_errors(loaded, state).max()) < 1e-6


@pytest.mark.parametrize("scope", ["per-step-block", "per-block", "per-step", "global"])
@pytest.mark.parametrize("tiar", [True, False])
def test_selection_is_never_worse_than_the_better(scope, tiar):
    """In the network that is simulated, at bits where neither block nor cache wins everywhere."""
    loaded = load_tiny(steps=6)
    options = {
        "cache_bits": 5,
        "cache_granularity": "step",
        "tiar": tiar,
        "scheme": Scheme(wbits=6, abits=5),
    }
    block = feature_errors(loaded, quantize(loaded, maintenance="block", **options))
    cache = feature_errors(loaded, quantize(loaded, maintenance="cache", **options))
    state = quantize(loaded, maintenance="select", selection=scope, **options)
    selected = feature_errors(loaded, state)
    axes = {"per-step-block": (), "per-block": (0,), "per-step": (1,), "global": (0, 1)}[scope]
    sums = [e.sum(dim=axes) if axes else e for e in (selected, block, cache)]
    assert bool((sums[0] <= torch.minimum(sums[1], sums[2]) * (1 + 1e-4)).all())


def test_layers_in_16_bits_are_selected_by_what_they_give():
    """Float16 weights disturb features too; a cache in float16 wins at some steps."""
    loaded = load_tiny(steps=6)
    scheme = Scheme(wbits=4, abits=8, policy="uniform-temporal16")
    options = {"cache_bits": 16, "scheme": scheme, "iterations": 0}
    states = [quantize(loaded, maintenance=m, **options) for m in ("select", "block", "cache")]
    selected, block, cache = (feature_errors(loaded, state) for state in states)
    assert bool((selected <= torch.minimum(block, cache) * (1 + 1e-2)).all())
    assert float(selected.sum()) < float(block.sum())


def test_a_selected_cache_leaves_its_steps_to_the_block():
    """Both kinds of entries occur, and the block's layers stay where they are needed."""
    loaded = load_tiny(steps=6)
    state = quantize(
        loaded,
        maintenance="select",
        cache_bits=5,
        cache_granularity="step",
        scheme=Scheme(wbits=6, abits=6),
    )
    for name in loaded.topology.time_projections:
        complete = name in state.cache and state.cache[name].complete
        assert complete != (name in state.layers)
    chosen = [cache.selected for cache in state.cache.values()]
    share = float(sum(one.sum() for one in chosen)) / (6 * len(loaded.topology.time_projections))
    assert 0 < share < 1


@pytest.mark.parametrize("scope", ["per-step-block", "per-block", "per-step", "global"])
def test_chained_features_are_maintained_together(scope):
    """Where h is a feature too, the sum of errors at each step is that of the better of both."""
    loaded = load_tiny(steps=6)
    names = (loaded.topology.time_mlp[-1], *loaded.topology.time_projections)
    loaded = replace(loaded, topology=replace(loaded.topology, time_features=names))

    def errors(maintenance):
        options = {"cache_bits": 5, "scheme": Scheme(wbits=5, abits=6), "iterations": 0}
        options["cache_granularity"] = "step"
        state = quantize(loaded, maintenance=maintenance, selection=scope, **options)
        exact = temporal_features(loaded, loaded.network, names=names)
        found = temporal_features(loaded, simulate(loaded, state), names=names)
        return state, temporal_errors(exact, found).relative.square().sum(dim=1)

    (state, selected), (_, block), (_, cache) = (errors(m) for m in ("select", "block", "cache"))
    if scope in ("per-step-block", "per-step"):
        assert bool((selected <= torch.minimum(block, cache) * (1 + 1e-4)).all())
        assert 0 < int(state.cache[names[0]].selected.sum()) < 6
    assert float(selected.sum()) <= min(float(block.sum()), float(cache.sum())) * (1 + 1e-4)
    masks = [state.cache[name].selected for name in names if name in state.cache]
    assert all(torch.equal(masks[0], mask) for mask in masks)


def test_surroundings_are_learned_on_the_final_features():
    """During reconstruction a projection gives what the finished network will."""
    import tfq_bench_tfmq.quantizer as module

    loaded = load_tiny(steps=4)
    seen = {}

    def spy(fake_quant, data, **rest):
        name = loaded.topology.time_projections[0]
        held = fake_quant.layer(name)
        handle = held.register_forward_hook(lambda _, __, output: seen.update(rows=output.clone()))
        fake_quant.predict(data.x[:2], data.timestep[:2], {}, torch.tensor([3, 1]))
        handle.remove()
        fake_quant.set(weights="hard")

    original = module.reconstruct
    module.reconstruct = spy
    try:
        state = quantize(loaded, maintenance="cache", cache_bits=4)
    finally:
        module.reconstruct = original
    expected = state.cache[loaded.topology.time_projections[0]].dequantized()
    assert torch.equal(expected[[3, 1]], seen["rows"])


def test_halves_of_a_shortcut_have_parameters_of_their_own():
    """Weights and ranges, in every method; `split = false` leaves the layer whole."""
    loaded = load_tiny(steps=4)
    first, second = quantize(loaded).layers["second.shortcut"].parts
    assert first.stop == second.start == loaded.topology.layer("second.shortcut").split
    assert not torch.equal(first.scale, second.scale)
    assert not torch.equal(first.activation.scale, second.activation.scale)
    assert 1 == len(quantize(loaded, split=False).layers["second.shortcut"].parts)


def test_activation_steps_are_learned_outside_of_the_temporal_block():
    """Scales there move from where they start; the block's stay FSC's, zero points all do."""
    loaded = load_tiny(steps=4)
    options = {"method": "tpami25", "maintenance": "block", "activation_lr": 1e-2}
    start = quantize(loaded, activation_iterations=0, **options)
    learned = quantize(loaded, activation_iterations=10, **options)
    temporal = {*loaded.topology.time_mlp, *loaded.topology.time_projections}
    for name, layer in learned.layers.items():
        for part, before in zip(layer.parts, start.layers[name].parts, strict=True):
            same = torch.equal(before.activation.scale, part.activation.scale)
            assert same == (name in temporal)
            assert torch.equal(before.activation.zero_point, part.activation.zero_point)
            assert torch.equal(before.weight, part.weight)


def test_every_entry_of_a_table_per_step_is_learned():
    """Also at sampler steps that weights are not learned at."""
    loaded = load_tiny(steps=4)
    options = {"method": "tpami25", "steps": 2, "activation_lr": 1e-2}
    start = quantize(loaded, activation_iterations=0, **options)
    learned = quantize(loaded, activation_iterations=10, **options)
    before, after = (
        state.layers["first.conv1"].parts[0].activation.scale for state in (start, learned)
    )
    assert 4 == int((before != after).sum())


def test_only_the_extension_learns_activation_steps():
    """The paper and its code have ranges alone."""
    learned = {
        (method, preset): settle(method=method, preset=preset).activation_iterations
        for method in ("cvpr24", "cvpr24-code", "tpami25")
        for preset in ("quick", "fast", "full")
    }
    assert {("tpami25", "fast"): 250, ("tpami25", "full"): 5000} == {
        key: count for key, count in learned.items() if count
    }


def test_symmetric_activations_are_those_of_the_other_inputs():
    """Their zero point is the middle code; the temporal block keeps what FSC found."""
    loaded = load_tiny(steps=4)
    free, middle = (quantize(loaded, symmetric_activations=on).layers for on in (False, True))
    time = {*loaded.topology.time_mlp, *loaded.topology.time_projections}

    def zero_points(layers, names):
        return {int(z) for name in names for z in layers[name].parts[0].activation.zero_point}

    assert {128} == zero_points(middle, middle.keys() - time)
    assert 1 < len(zero_points(free, free.keys() - time))
    assert zero_points(free, time) == zero_points(middle, time)


def test_tiar_goes_by_its_own_learning_rate(caplog):
    """Whatever the blocks' rate is, the temporal block comes out the same; by its own it moves."""
    loaded = load_tiny(steps=4)
    time = (*loaded.topology.time_mlp, *loaded.topology.time_projections)
    preset, blocks, own = (
        quantize(loaded, **rates).layers for rates in ({}, {"lr": 1e-4}, {"tiar_lr": 1e-4})
    )

    def codes(layers):
        return torch.cat([layers[name].parts[0].weight.flatten() for name in time])

    assert torch.equal(codes(preset), codes(blocks))
    assert not torch.equal(codes(preset), codes(own))


def test_selection_says_what_it_takes_from_the_cache(caplog):
    """Of all entries, by block and by step; the state has the same share."""
    loaded = load_tiny(steps=4)
    with caplog.at_level("INFO", logger="tfq_bench.tfmq"):
        state = quantize(loaded, maintenance="select", cache_bits=3)
    by_block = {
        name: state.cache[name].selected.double().mean() if name in state.cache else 0.0
        for name in loaded.topology.time_features
    }
    share = 100 * sum(by_block.values()) / len(by_block)
    assert 0 < share < 100
    assert f"selection: cache for {share:.1f}% of 8 features" in caplog.text
    for name, one in by_block.items():
        assert f"{name} {100 * one:.0f}%" in caplog.text
    assert "cache by step: 0 " in caplog.text


@pytest.mark.parametrize("policy", ["uniform-io16", "paper"])
def test_bias_correction_also_acts_on_an_exempt_output_layer(policy):
    """Its bias is then in the state."""
    loaded = load_tiny(steps=4)
    scheme = Scheme(wbits=4, abits=8, policy=policy)
    plain, corrected = (quantize(loaded, scheme, bias_correction=on) for on in (False, True))
    assert ({}, ["conv_out"]) == (plain.biases, list(corrected.biases))
    assert not torch.equal(loaded.network.conv_out.bias, corrected.biases["conv_out"])


def test_bias_correction_moves_the_output_bias_alone():
    """Off unless asked for; it comes after all that is learned."""
    loaded = load_tiny(steps=4)
    plain = quantize(loaded, method="tpami25").layers
    corrected = quantize(loaded, method="tpami25", bias_correction=True).layers
    moved = [name for name in plain if not torch.equal(plain[name].bias, corrected[name].bias)]
    assert ["conv_out"] == moved
    assert torch.equal(loaded.network.conv_out.bias.detach(), plain["conv_out"].bias)


def test_calibration_looks_at_every_cth_step():
    """20 of 100 steps for rounding and static ranges; all for ranges per step; none for neither."""
    loaded = load_tiny(steps=100)

    def steps(scheme=W4A8, **options):
        needs = Tfmq(scheme=scheme, **options).calibration_needs(loaded, images=2)
        return sorted({step for step, _ in needs.samples})

    assert list(range(0, 100, 5)) == steps()
    assert list(range(100)) == steps(method="cvpr24-code")
    assert list(range(0, 100, 5)) == steps(method="cvpr24-code", scheme=Scheme(wbits=4, abits=32))
    assert [] == steps(scheme=Scheme(wbits=4, abits=32), iterations=0)


def test_networks_without_temporal_block_fail_loudly():
    """Nothing is quantized in silence."""
    loaded = load_tiny()
    bare = type(loaded)(
        model=loaded.model,
        network=loaded.network,
        topology=Topology(layers=loaded.topology.layers, blocks=loaded.topology.blocks),
        sampler=loaded.sampler,
        device="cpu",
    )
    with pytest.raises(QuantizationError, match="needs a network with a time MLP"):
        quantize(bare)
