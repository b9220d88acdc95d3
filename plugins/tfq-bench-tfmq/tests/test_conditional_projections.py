"""Where a condition enters before the projections: what is tabulated, and what is learned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tfq_bench.api import CalibrationError, CalibrationNeeds, LoadedModel, QuantizationError, Scheme
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant import simulate, temporal_errors, temporal_features
from tfq_bench.quant.learn.fake_quant_network import FakeQuantNetwork
from tfq_bench.quant.rtn import RoundToNearest
from tfq_bench.seeds import generator
from tfq_bench_tfmq.conditional_projections import behind_condition, check_inputs, learn_projections
from tfq_bench_tfmq.find_block import find_temporal_block
from tfq_bench_tfmq.presets import layer_plan
from tfq_bench_tfmq.quantizer import Tfmq

W4A8 = Scheme(wbits=4, abits=8)
QUICK = {"preset": "quick", "iterations": 4, "tiar_iterations": 60, "samples": 4}
FAMILIES = pytest.mark.parametrize("family", ["sdxl", "class-unet", "dit"])
UNSEEN = range(100, 108)
"""Images that calibration does not see, nor their texts; classes it has seen."""


def ignore(*_):
    """Progress that nobody looks at."""


def quantize(loaded, quantizer, *, images=4):
    """The state for a few calibration images."""
    needs = quantizer.calibration_needs(loaded, images=images)
    data = capture(loaded, needs, seed=1, batch=4, progress=ignore)
    return quantizer.quantize(loaded, data, generator=generator(0, "test"), progress=ignore)


def tfmq(loaded, scheme=W4A8, *, images=4, **options):
    """The state of `tfmq` with few iterations."""
    return quantize(loaded, Tfmq(scheme=scheme, **(QUICK | options)), images=images)


def feature_errors(loaded, state):
    """Squared relative errors `[T, n]` of the time features of the simulated network."""
    names = loaded.topology.time_features
    exact = temporal_features(loaded, loaded.network, names=names)
    found = temporal_features(loaded, simulate(loaded, state), names=names)
    return temporal_errors(exact, found).relative.square()


def unseen_errors(loaded, state):
    """Relative errors over all steps for `UNSEEN`: of the prediction, and of the projections.

    Along the full-precision trajectory: each step's ranges are those of the states it meets.
    """
    names = loaded.topology.time_projections
    lowered = simulate(loaded, state)
    steps = range(len(loaded.sampler.timesteps))
    needs = CalibrationNeeds(samples=tuple((step, image) for step in steps for image in UNSEEN))
    data = capture(loaded, needs, seed=7, batch=8, progress=ignore)
    totals = torch.zeros(2, 2, dtype=torch.float64)
    for step in steps:
        rows = data.step == step
        condition = {name: value[rows] for name, value in data.condition.items()}
        lowered.step.set(step)
        outputs = [
            _seen(loaded, network, names, data.x[rows], data.timestep[rows], condition)
            for network in (loaded.network, lowered.network)
        ]
        for number, (exact, found) in enumerate(zip(*outputs, strict=True)):
            totals[number, 0] += (found - exact).double().square().sum()
            totals[number, 1] += exact.double().square().sum()
    return (totals[:, 0] / totals[:, 1]).sqrt().tolist()


def _seen(loaded, network, names, x, timestep, condition):
    """The prediction, and the outputs of the layers `names` side by side."""
    seen = {}

    def keep(name):
        return lambda _, __, output: seen.update({name: output})

    handles = [network.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    prediction = loaded.model.predict(network, x, timestep, condition)
    for handle in handles:
        handle.remove()
    return prediction, torch.cat([seen[name] for name in names], dim=1)


@pytest.mark.parametrize(
    ("family", "layers", "features", "projections"),
    [("sdxl", 2, 1, 8), ("class-unet", 2, 1, 8), ("dit", 6, 3, 4)],
)
def test_block_ends_where_the_condition_enters(load_family, family, layers, features, projections):
    """Its features are the time MLPs' outputs, as the network computes them, and no projection."""
    loaded = load_family(family)
    block = find_temporal_block(loaded)
    assert (layers, features) == (len(block.layers), len(block.outputs))
    behind = behind_condition(loaded.topology)
    assert projections == len(behind)
    assert loaded.topology.time_projections == behind
    expected = temporal_features(loaded, loaded.network, names=block.outputs)
    for name, rows in block.features().items():
        assert float((expected[name] - rows).norm() / rows.norm()) < 1e-6, name


def test_each_chain_reads_itself(load_family):
    """A layer of a DiT's embedder reads the one before it in the same block, or the table."""
    block = find_temporal_block(load_family("dit"))
    assert {
        name: None if name.endswith("1") else f"{name[:-1]}1" for name in block.layers
    } == block.reads


@FAMILIES
def test_cached_features_are_full_precision_at_16_bits(load_family, family):
    """Only float16 rounds them, and the time MLP is gone; the projections are still computed."""
    loaded = load_family(family)
    state = tfmq(loaded, maintenance="cache", cache_bits=16)
    assert set(loaded.topology.time_features) == set(state.cache)
    assert not set(loaded.topology.time_mlp) & {*state.layers, *state.exempt}
    assert set(loaded.topology.time_projections) <= set(state.layers)
    assert float(feature_errors(loaded, state).max()) < 1e-6


@FAMILIES
def test_selection_is_never_worse_than_the_better(load_family, family):
    """Entry by entry, in the simulated network, at bits where neither wins everywhere."""
    loaded = load_family(family)
    options = {"cache_bits": 5, "iterations": 0, "scheme": Scheme(wbits=6, abits=5)}
    selected, block, cache = (
        feature_errors(loaded, tfmq(loaded, maintenance=maintenance, **options))
        for maintenance in ("select", "block", "cache")
    )
    assert bool((selected <= torch.minimum(block, cache) * (1 + 1e-4)).all())


@FAMILIES
def test_predictions_are_better_than_round_to_nearest(load_family, family):
    """For images and texts that calibration has not seen; so are the projections' outputs."""
    loaded = load_family(family)
    nearest = unseen_errors(loaded, quantize(loaded, RoundToNearest(scheme=W4A8), images=8))
    options = {"iterations": 60, "tiar_iterations": 300, "samples": 8}
    state = tfmq(loaded, method="tpami25", images=8, **options)
    prediction, projections = unseen_errors(loaded, state)
    assert prediction < 0.9 * nearest[0]
    assert projections < 0.8 * nearest[1]


@FAMILIES
def test_projections_are_better_learned_apart_than_in_their_blocks(load_family, family):
    """On their own inputs, for texts that calibration has not seen."""
    loaded = load_family(family)
    options = {"iterations": 24, "tiar_iterations": 300, "maintenance": "cache"}
    apart = unseen_errors(loaded, tfmq(loaded, **options))[1]
    within = unseen_errors(loaded, tfmq(loaded, tiar=False, **options))[1]
    assert apart < 0.9 * within


def test_projections_make_up_for_the_features_error(load_family):
    """They are compared on what they will read: the time features that the network really adds."""
    loaded = load_family("class-unet")
    needs = Tfmq(scheme=W4A8, **QUICK).calibration_needs(loaded, images=2)
    data = capture(loaded, needs, seed=1, batch=4, progress=ignore)
    losses = []
    for factor in (1.0, 1.5):
        fake_quant = FakeQuantNetwork(loaded, layer_plan(loaded, Scheme(wbits=8, abits=8)))
        fake_quant.network.get_submodule(loaded.topology.time_features[0]).register_forward_hook(
            lambda _, __, output, factor=factor: factor * output
        )
        report = learn_projections(
            fake_quant,
            data,
            behind_condition(loaded.topology),
            iterations=200,
            lr=1e-2,
            generator=generator(0, "test"),
            progress=ignore,
        )
        losses.append((report.before, report.after))
    assert losses[1][0] > 10 * losses[0][0]
    assert losses[1][1] < losses[1][0]


def test_block_reconstruction_leaves_learned_projections_alone(load_family):
    """They have the same codes whether or not the blocks around them are learned."""
    loaded = load_family("class-unet")
    one, other = tfmq(loaded, iterations=0), tfmq(loaded, iterations=8)

    def codes(state, names):
        return torch.cat([state.layers[name].parts[0].weight.flatten() for name in names])

    behind = behind_condition(loaded.topology)
    rest = [name for name in one.layers if name.endswith("conv1")]
    assert torch.equal(codes(one, behind), codes(other, behind))
    assert not torch.equal(codes(one, rest), codes(other, rest))


@pytest.mark.parametrize("fsc", [True, False])
def test_temporal_layers_have_a_range_for_every_step_with_fsc(load_family, fsc):
    """The block from its table, the projections from calibration data; the rest is static."""
    loaded = load_family("sdxl", steps=5)
    state = tfmq(loaded, fsc=fsc, iterations=0)
    lengths = {name: len(layer.parts[0].activation.scale) for name, layer in state.layers.items()}
    temporal = {*loaded.topology.time_mlp, *loaded.topology.time_projections}
    assert (temporal if fsc else set()) == {name for name, n in lengths.items() if n == 5}


@FAMILIES
def test_16_bits_keep_all_temporal_layers(load_family, family):
    """As `conditioned` says: float16 instead of codes, under any policy."""
    loaded = load_family(family)
    state = tfmq(loaded, conditioned="float16", iterations=0)
    temporal = {*loaded.topology.time_mlp, *loaded.topology.time_projections}
    assert temporal == set(state.half)
    assert "in 16 bits" in state.exempt[loaded.topology.time_mlp[0]]
    assert not state.cache
    assert float(feature_errors(loaded, state).max()) < 1e-6


def test_16_bits_are_for_models_with_a_condition_before_the_projections(loaded):
    """Elsewhere the option changes nothing."""
    assert layer_plan(loaded, W4A8) == layer_plan(loaded, W4A8, "float16")


def test_calibration_sees_every_step_when_projections_need_it(load_family):
    """For ranges per step, not when they are float16 or have one range."""
    loaded = load_family("class-unet", steps=100)

    def steps(scheme=W4A8, **options):
        needs = Tfmq(scheme=scheme, **options).calibration_needs(loaded, images=2)
        return len({step for step, _ in needs.samples})

    w4 = Scheme(wbits=4, abits=32)
    assert 100 == steps()
    assert 20 == steps(fsc=False)
    assert 20 == steps(conditioned="float16")
    assert 20 == steps(scheme=w4, iterations=0)
    assert 0 == steps(scheme=w4, iterations=0, tiar_iterations=0)
    assert 0 == steps(scheme=w4, iterations=0, conditioned="float16")


def _with_image(loaded: LoadedModel, name: str) -> LoadedModel:
    """The image is added to what layer `name` reads."""
    held: dict[str, torch.Tensor] = {}
    loaded.network.register_forward_pre_hook(lambda _, inputs: held.update(x=inputs[0]))
    loaded.network.get_submodule(name).register_forward_pre_hook(
        lambda _, inputs: (inputs[0] + held["x"].mean(dim=(1, 2, 3))[:, None],)
    )
    return loaded


@FAMILIES
def test_an_image_in_front_of_a_projection_is_refused(load_family, family):
    """The message names the layer and what differs."""
    loaded = load_family(family)
    name = behind_condition(loaded.topology)[-1]
    with pytest.raises(QuantizationError, match=f"'{name}' differs between two images"):
        tfmq(_with_image(loaded, name))


@FAMILIES
def test_an_image_in_the_time_mlp_is_refused(load_family, family):
    """Wherever it enters, in any of the chains."""
    loaded = load_family(family)
    name = loaded.topology.time_mlp[-1]
    with pytest.raises(QuantizationError, match=f"'{name}' differs between two images"):
        tfmq(_with_image(loaded, name))


def test_a_condition_before_the_features_is_refused(load_family):
    """A topology that calls projections features although a text enters before them."""
    loaded = load_family("sdxl")
    wrong = replace(loaded.topology, time_features=loaded.topology.time_projections)
    with pytest.raises(QuantizationError, match="differs between two images"):
        tfmq(replace(loaded, topology=wrong))


def test_a_projection_of_another_kind_is_refused(load_family):
    """Convolutions are not understood."""
    loaded = load_family("class-unet")
    with pytest.raises(QuantizationError, match="'conv_in' must be Linear, found Conv2d"):
        check_inputs(loaded, ["conv_in"])


def test_a_projection_that_reads_tokens_is_refused(load_family):
    """One row per image is expected; the message says what was found."""
    loaded = load_family("dit")
    name = "transformer_blocks.0.attn1.to_q"
    assert isinstance(loaded.network.get_submodule(name), nn.Linear)
    with pytest.raises(QuantizationError, match=r"shapes \[\(2, 16, 16\)\] for 2 images"):
        check_inputs(loaded, [name])


def test_no_samples_are_an_error(load_family):
    """Unless nothing is to be learned."""
    loaded = load_family("dit")
    fake_quant = FakeQuantNetwork(loaded, layer_plan(loaded, W4A8))
    empty = capture(
        loaded,
        Tfmq(scheme=W4A8).calibration_needs(loaded, images=0),
        seed=1,
        batch=4,
        progress=ignore,
    )
    names = behind_condition(loaded.topology)

    def learn(iterations):
        return learn_projections(
            fake_quant,
            empty,
            names,
            iterations=iterations,
            lr=1e-2,
            generator=generator(0, "test"),
            progress=ignore,
        )

    assert 0.0 == learn(0).after
    with pytest.raises(CalibrationError, match="found no samples"):
        learn(5)
