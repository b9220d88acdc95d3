"""Round to nearest: static ranges, the policy's bits, and the same bytes every time."""

from dataclasses import replace

import pytest
import torch

from tfq_bench.errors import CalibrationError, QuantizationError
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant import find_layer
from tfq_bench.quant.calibrate import observers
from tfq_bench.quant.calibrate.temporal import float16_caches, temporal_errors, temporal_features
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.quant.rtn import RoundToNearest
from tfq_bench.quant.state.storage import save_state
from tfq_bench.types import CalibrationNeeds, Scheme


def silent(done, text):
    """A `Progress` that says nothing."""


def saved(state, folder):
    """The bytes of a saved state."""
    save_state(state, folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("activations", ["minmax", "mse", "percentile", "ema"])
def test_same_inputs_give_the_same_bytes(round_to_nearest, tmp_path, activations):
    """With every method of finding ranges, also those that draw a sample."""
    one = saved(round_to_nearest(4, 8, activations=activations), tmp_path / "one")
    two = saved(round_to_nearest(4, 8, activations=activations), tmp_path / "two")
    assert one == two


def test_weights_lie_within_half_a_step_of_the_original(loaded, round_to_nearest, dequantized):
    """Min-max rounding clips nothing."""
    for name, layer in round_to_nearest(4, 8).layers.items():
        weight = loaded.network.get_submodule(name).weight
        error = (dequantized(layer) - weight).abs().flatten(1).amax(1)
        assert (error <= layer.parts[0].scale * 0.501).all()


def test_static_range_holds_every_calibration_input(loaded, round_to_nearest):
    """The range of the input layer is that of the captured states over all observed steps."""
    needs = RoundToNearest(scheme=Scheme(wbits=8, abits=8)).calibration_needs(loaded, images=4)
    data = capture(loaded, needs, seed=0, batch=4, progress=silent)
    (part,) = round_to_nearest(8, 8).layers["conv_in"].parts
    table = part.activation
    low = -table.scale * table.zero_point
    assert table.scale.shape == (1,)
    torch.testing.assert_close(data.x.max() - data.x.min(), 255 * table.scale[0])
    torch.testing.assert_close(low[0], data.x.min(), rtol=0, atol=float(table.scale))


def test_moving_average_forgets_no_step(loaded):
    """Its samples come in random order: narrow early steps do not hide wide late ones."""
    quantizer = RoundToNearest(scheme=Scheme(wbits=8, abits=8), activations="ema")
    needs = quantizer.calibration_needs(loaded, images=16)
    data = capture(loaded, needs, seed=0, batch=16, progress=silent)
    late = (data.step >= data.step.float().median())[:, None, None, None]
    data = replace(data, x=torch.where(late, data.x, data.x / 100))
    found = [
        quantizer.quantize(
            loaded, data, generator=torch.Generator().manual_seed(seed), progress=silent
        )
        for seed in (0, 0, 1)
    ]
    scales = [state.layers["conv_in"].parts[0].activation.scale for state in found]
    whole = float(data.x.max() - data.x.min())
    # By step, the average would end at a fifth to a third of the whole range.
    assert all(0.6 < 255 * float(scale) / whole <= 1.0 for scale in scales)
    assert scales[0] == scales[1] != scales[2]


def test_layers_on_disk_are_the_layers(loaded, tmp_path):
    """A checkpoint changes where codes lie while they are made, nothing else."""
    quantizer = RoundToNearest(scheme=Scheme(wbits=4, abits=8))
    needs = quantizer.calibration_needs(loaded, images=2)
    data = capture(loaded, needs, seed=0, batch=4, progress=silent)
    found = []
    for name, checkpoint in (("memory", None), ("disk", tmp_path / "checkpoint")):
        state = quantizer.quantize(
            loaded,
            data,
            generator=torch.Generator().manual_seed(0),
            progress=silent,
            checkpoint=checkpoint,
        )
        found.append(saved(state, tmp_path / name))
    assert found[0] == found[1]
    assert list((tmp_path / "checkpoint").rglob("*.safetensors"))


def test_input_and_output_keep_eight_bits(round_to_nearest):
    """`uniform` asks 4 bits of everything else, time layers included."""
    state = round_to_nearest(4, 4)
    eight = {name for name, layer in state.layers.items() if layer.wbits == 8}
    assert {"conv_in", "conv_out"} == eight
    assert {4, 8} == {layer.abits for layer in state.layers.values()}
    assert (state.layers["time_mlp.0"].wbits, state.layers["first.time"].abits) == (4, 4)


def test_weight_only_quantization_needs_no_data(loaded):
    """With float activations nothing is observed."""
    quantizer = RoundToNearest(scheme=Scheme(wbits=4, abits=32))
    assert CalibrationNeeds() == quantizer.calibration_needs(loaded, images=4)
    data = capture(loaded, CalibrationNeeds(), seed=0, batch=4, progress=silent)
    state = quantizer.quantize(loaded, data, generator=torch.Generator(), progress=silent)
    assert {32} == {layer.abits for layer in state.layers.values()}


def test_calibration_covers_the_trajectory_from_end_to_end(loaded):
    """Three of six steps are the first, one in the middle, and the last."""
    quantizer = RoundToNearest(scheme=Scheme(wbits=8, abits=8), calibration_steps=3)
    needs = quantizer.calibration_needs(loaded, images=2)
    assert needs.samples == ((0, 0), (0, 1), (2, 0), (2, 1), (5, 0), (5, 1))


def test_mse_weights_are_closer_in_the_searched_norm(loaded, round_to_nearest, dequantized):
    """At 4 bits, summed over the layers."""
    errors = {}
    for method in ("minmax", "mse"):
        layers = round_to_nearest(4, 8, weights=method).layers
        errors[method] = sum(
            float((dequantized(la) - loaded.network.get_submodule(n).weight).abs().pow(2.4).sum())
            for n, la in layers.items()
        )
    assert errors["mse"] < errors["minmax"]


def test_asymmetric_weights_have_zero_points_of_their_own(round_to_nearest):
    """On request only: kernels prefer symmetric codes."""
    symmetric = round_to_nearest(4, 8).layers["first.conv1"].parts[0].zero_point
    free = round_to_nearest(4, 8, symmetric_weights=False).layers["first.conv1"].parts[0].zero_point
    assert {8} == set(symmetric.tolist())
    assert len(set(free.tolist())) > 1


def test_sample_stays_bounded_however_much_is_observed(generator, monkeypatch):
    """A layer that is run more often than announced does not fill the memory."""
    monkeypatch.setattr(observers, "SAMPLE_LIMIT", 100)
    ranges = observers.InputRanges("percentile", batches=4, generator=generator)
    for _ in range(50):
        ranges.update("layer", torch.randn(1000, generator=generator))
    assert sum(map(len, ranges._samples["layer"])) == 100


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        (Scheme(wbits=1, abits=8), "found W1A8"),
        (Scheme(wbits=8, abits=16), "found W8A16"),
        (Scheme(wbits=8, abits=8, policy="unifrom"), "did you mean 'uniform'"),
    ],
)
def test_impossible_requests_say_what_was_found(loaded, scheme, said):
    """Bits out of range, and a policy that does not exist."""
    data = capture(loaded, CalibrationNeeds(), seed=0, batch=4, progress=silent)
    with pytest.raises(QuantizationError, match=said):
        RoundToNearest(scheme=scheme).quantize(
            loaded, data, generator=torch.Generator(), progress=silent
        )


def test_missing_data_and_broken_inputs_are_calibration_errors(loaded, round_to_nearest):
    """No images to look at, or an input that is not finite, named by layer; hooks are gone."""
    with pytest.raises(CalibrationError, match="at least one calibration image"):
        round_to_nearest(8, 8, images=0)
    loaded.network.conv_in.bias[0] = torch.nan
    with pytest.raises(CalibrationError, match="finite"):
        round_to_nearest(8, 8)
    assert not any(module._forward_pre_hooks for module in loaded.network.modules())


def test_policy_can_exempt_a_role(loaded):
    """The reason is kept for the report."""
    from tfq_bench.quant.policy import Exempt, LayerBits, Policy, resolve

    policy = Policy(name="paper", exempt={"shortcut": "the paper keeps it float"})
    plan = resolve(policy, loaded.topology, Scheme(wbits=4, abits=8))
    assert Exempt(reason="the paper keeps it float") == plan["second.shortcut"]
    assert LayerBits(wbits=4, abits=8) == plan["conv_in"]
    assert [layer.name for layer in loaded.topology.layers] == list(plan)


def test_split_rounds_both_halves_of_a_shortcut_apart(loaded, round_to_nearest):
    """Each part has the ranges of its own half; everything else is as without the split."""
    whole, split = round_to_nearest(8, 8), round_to_nearest(8, 8, split=True)
    weight = loaded.network.second.shortcut.weight
    (one,), halves = whole.layers["second.shortcut"].parts, split.layers["second.shortcut"].parts
    assert [(0, 16), (16, 32)] == [(part.start, part.stop) for part in halves]
    for part in halves:
        extent = weight[:, part.start : part.stop].abs().amax((1, 2, 3))
        torch.testing.assert_close(part.scale, extent / 127)
    steps = torch.stack([part.activation.scale[0] for part in halves])
    assert float(steps.min()) < float(one.activation.scale[0])
    assert float(steps.max()) <= float(one.activation.scale[0]) * 1.0001
    for name, layer in whole.layers.items():
        if name != "second.shortcut":
            assert torch.equal(layer.parts[0].weight, split.layers[name].parts[0].weight)
            assert len(split.layers[name].parts) == 1


def test_float16_cache_replaces_the_temporal_layers(loaded, round_to_nearest):
    """The features are the full-precision ones to half precision, and the layers are gone."""
    state = round_to_nearest(4, 8, temporal="cache16")
    assert {"time_mlp.0", "time_mlp.2", "first.time", "second.time"} == state.dropped(
        loaded.topology
    )
    expected = temporal_features(loaded, loaded.network)
    found = temporal_features(loaded, simulate(loaded, state))
    for name, rows in expected.items():
        assert torch.equal(rows.half().float(), found[name])


def test_temporal_layers_in_16_bits_are_exempt_halves(loaded, round_to_nearest):
    """Close to full precision, unlike four bits."""
    errors = {}
    reference = temporal_features(loaded, loaded.network)
    for policy in ("uniform", "uniform-temporal16"):
        state = round_to_nearest(4, 8, policy=policy)
        features = temporal_features(loaded, simulate(loaded, state))
        errors[policy] = float(temporal_errors(reference, features).relative.mean())
    assert {"time_mlp.0", "time_mlp.2", "first.time", "second.time"} == set(state.half)
    assert errors["uniform-temporal16"] < 1e-3 < errors["uniform"]


def test_input_and_output_in_16_bits_are_exempt_halves(loaded, round_to_nearest):
    """Float layers with weights and bias rounded to float16; all others have the asked bits."""
    state = round_to_nearest(4, 4, policy="uniform-io16")
    assert ("conv_in", "conv_out") == state.half
    assert {(4, 4)} == {
        (layer.wbits, layer.parts[0].activation.bits) for layer in state.layers.values()
    }
    network = simulate(loaded, state).network
    for name in state.half:
        expected, found = find_layer(loaded.network, name), find_layer(network, name)
        assert torch.equal(expected.weight.half().float(), found.weight)
        assert torch.equal(expected.bias.half().float(), found.bias)


def test_cache_of_a_model_without_time_projections_is_refused(loaded):
    """There would be nothing in it."""
    bare = replace(
        loaded,
        topology=replace(loaded.topology, time_projections=(), time_features=(), time_mlp=()),
    )
    with pytest.raises(QuantizationError, match="lists none"):
        float16_caches(bare)
