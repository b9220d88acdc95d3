"""Jittered weight scales: other codes for every seed, and nothing else that is different."""

import pytest
import torch

from tfq_bench.errors import QuantizationError
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.pipeline.quantize import quantize
from tfq_bench.quant import RoundToNearest, ScaleJitter, round_weight
from tfq_bench.types import Scheme


def codes(state):
    """The codes of every part of every layer, in one row."""
    return torch.cat(
        [part.weight.flatten() for layer in state.layers.values() for part in layer.parts]
    )


def scales(state):
    """float32: the weight scales of every part of every layer, in one row."""
    return torch.cat([part.scale for layer in state.layers.values() for part in layer.parts])


def test_calibration_seeds_are_replicates_of_rounding(loaded):
    """The suite's seed, as a run hands it on, moves codes; the same seed gives the same ones."""

    def state(jitter, seed):
        method = RoundToNearest(scheme=Scheme(wbits=4, abits=8), jitter=jitter)
        needs = method.calibration_needs(loaded, images=2)
        data = capture(loaded, needs, seed=0, batch=4, progress=lambda *_: None)
        return quantize(method, loaded, data, seed=seed, progress=lambda *_: None)[0]

    assert torch.equal(codes(state(0.0, 0)), codes(state(0.0, 1)))
    one, again, other = state(0.05, 0), state(0.05, 0), state(0.05, 1)
    assert torch.equal(codes(one), codes(again))
    assert torch.equal(scales(one), scales(again))
    assert not (scales(one) == scales(other)).any()
    moved = (codes(one) != codes(other)).float().mean()
    assert 0.01 < moved < 0.3


@pytest.mark.parametrize("method", ["minmax", "mse"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_factors_move_the_scale_and_nothing_else(generator, method, symmetric):
    """Codes are those of the multiplied scale; zero points stay, and no code moves far."""
    weight = torch.randn(16, 8, 3, 3, generator=generator)
    weight[3] = 0
    factors = ScaleJitter(0.05, generator=generator).factors("layer", 16)
    before, plain, zero = round_weight(weight, 4, method=method, symmetric=symmetric)
    after, scale, same = round_weight(
        weight, 4, method=method, symmetric=symmetric, factors=factors
    )
    assert torch.equal(zero, same)
    assert torch.equal(plain * factors, scale)
    expected = (weight * (1 / scale)[:, None, None, None]).round() + zero[:, None, None, None]
    assert torch.equal(expected.clamp(0, 15).to(torch.uint8), after)
    assert (after.int() - before.int()).abs().max() == 1
    assert (after[3] == before[3]).all()


def test_without_jitter_nothing_is_drawn_and_nothing_changes(generator):
    """The bits of min-max rounding as its formula has them, and the generator as it was."""
    weight = torch.randn(8, 32, generator=generator)
    before = generator.get_state()
    ones = ScaleJitter(0.0, generator=generator).factors("layer", 8)
    assert torch.equal(before, generator.get_state())
    found, scale, _ = round_weight(weight, 4, factors=ones)
    expected = weight.abs().amax(dim=1) / 7
    assert torch.equal(expected, scale)
    assert torch.equal(((weight * (1 / expected)[:, None]).round() + 8).to(torch.uint8), found)


def test_factors_stay_within_their_half_width(generator):
    """Uniform around 1: positive, never further than asked, and as wide as that."""
    factors = ScaleJitter(0.03, generator=generator).factors("layer", 10_000)
    assert torch.float32 == factors.dtype
    assert 0.97 <= float(factors.min()) < 0.9702
    assert 1.0298 < float(factors.max()) <= 1.03
    assert abs(float(factors.mean()) - 1) < 1e-3
    assert abs(float(factors.std()) - 0.03 / 3**0.5) < 1e-3
    assert float(ScaleJitter(0.999, generator=generator).factors("layer", 10_000).min()) > 0


def test_layers_are_drawn_apart(round_to_nearest):
    """Another policy leaves the codes of the layers that it treats alike; no two layers share."""
    uniform = round_to_nearest(4, 8, jitter=0.05)
    other = round_to_nearest(4, 8, jitter=0.05, policy="uniform-io16")
    assert {"conv_in", "conv_out"} == set(uniform.layers) - set(other.layers)
    for name, layer in other.layers.items():
        assert torch.equal(layer.parts[0].weight, uniform.layers[name].parts[0].weight)
    plain = round_to_nearest(4, 8)
    ratios = [
        uniform.layers[name].parts[0].scale / plain.layers[name].parts[0].scale
        for name in ("first.conv1", "first.conv2")
    ]
    assert not torch.isclose(*ratios).any()


def test_parts_of_a_split_layer_are_drawn_apart(round_to_nearest):
    """Each has scales of its own, and so factors of its own."""
    plain, jittered = (round_to_nearest(4, 8, split=True, jitter=j) for j in (0.0, 0.05))
    one, other = (
        a.scale / b.scale
        for a, b in zip(
            jittered.layers["second.shortcut"].parts,
            plain.layers["second.shortcut"].parts,
            strict=True,
        )
    )
    assert not torch.isclose(one, other).any()


def test_activation_ranges_are_left_alone(round_to_nearest):
    """Also those that draw: what is jittered is drawn after them."""
    plain, jittered = (round_to_nearest(4, 8, activations="ema", jitter=j) for j in (0.0, 0.05))
    for name, layer in plain.layers.items():
        assert torch.equal(
            layer.parts[0].activation.scale, jittered.layers[name].parts[0].activation.scale
        )


@pytest.mark.parametrize("jitter", [-0.01, 1.0, float("nan")])
def test_a_jitter_that_could_end_a_scale_is_refused(round_to_nearest, jitter):
    """A factor of 0 or below would be no rounding any more."""
    with pytest.raises(QuantizationError, match=f"at least 0 and below 1, found {jitter}"):
        round_to_nearest(4, 8, jitter=jitter)
