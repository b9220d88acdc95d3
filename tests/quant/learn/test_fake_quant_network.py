"""The fake-quantized network: its modes, its parts, and the state it freezes into."""

from __future__ import annotations

import pytest
import torch

from tfq_bench.errors import QuantizationError
from tfq_bench.quant import UNIFORM, ActivationQParams, Exempt, resolve, simulate
from tfq_bench.quant.learn.fake_quant_network import FakeQuantNetwork
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import Scheme

W4A8 = Scheme(wbits=4, abits=8)
STEPS = torch.tensor([0, 1, 2, 3])


@pytest.fixture(scope="module")
def loaded():
    """The tiny model."""
    return load_tiny()


def _inputs(loaded):
    x = torch.randn(4, *loaded.model.latent_shape, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor([loaded.sampler.timesteps[k] for k in STEPS])


def _working(loaded, **options):
    return FakeQuantNetwork(loaded, resolve(UNIFORM, loaded.topology, W4A8), **options)


def _tables(fake_quant, steps):
    for number, layer in enumerate(fake_quant.layers.values()):
        table = ActivationQParams(
            bits=8,
            scale=0.02 + 0.001 * number + 0.002 * torch.arange(steps, dtype=torch.float32),
            zero_point=torch.full((steps,), 100, dtype=torch.int32),
        )
        layer.set_tables([table] * len(layer.pieces))


@torch.no_grad()
def test_in_float_it_is_the_full_precision_network(loaded):
    """Float weights and activations change nothing, and the model itself is untouched."""
    before = {name: value.clone() for name, value in loaded.network.state_dict().items()}
    fake_quant = _working(loaded, split=True)
    fake_quant.set(weights="float")
    x, t = _inputs(loaded)
    expected = loaded.model.predict(loaded.network, x, t, {})
    torch.testing.assert_close(expected, fake_quant.predict(x, t, {}, STEPS), atol=1e-5, rtol=1e-5)
    after = loaded.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@torch.no_grad()
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("steps", [1, 4])
def test_frozen_it_predicts_what_it_predicted(loaded, split, steps):
    """The simulated state agrees with the hard network, static tables and per-step ones."""
    fake_quant = _working(loaded, split=split)
    _tables(fake_quant, steps)
    fake_quant.set(weights="hard", activations="quantized")
    x, t = _inputs(loaded)
    mixed = fake_quant.predict(x, t, {}, STEPS)
    lowered = simulate(loaded, fake_quant.freeze("test", W4A8))
    for step in range(4):
        lowered.step.set(step)
        row = slice(step, step + 1)
        alone = loaded.model.predict(lowered.network, x[row], t[row], {})
        # Rounding borders: a value in a thousand may take the next code.
        assert float((alone - mixed[row]).norm() / alone.norm()) < 0.02


def test_exempt_layers_stay_as_they_are(loaded):
    """What the policy exempts is no fake-quantized layer and is exempt in the state."""
    plan = resolve(UNIFORM, loaded.topology, W4A8)
    name = loaded.topology.layers[0].name
    plan[name] = Exempt(reason="first")
    fake_quant = FakeQuantNetwork(loaded, plan)
    state = fake_quant.freeze("test", W4A8)
    assert name not in fake_quant.layers
    assert {name: "first"} == dict(state.exempt)


def test_learning_must_end_before_freezing(loaded):
    """A soft layer cannot be written down, and the message names it."""
    fake_quant = _working(loaded)
    name = next(iter(fake_quant.layers))
    fake_quant.layer(name).begin_rounding()
    with pytest.raises(QuantizationError, match=f"'{name}' is still being learned"):
        fake_quant.freeze("test", W4A8)


def test_hardened_codes_are_the_learned_ones(loaded):
    """What alpha says ends in the codes, and in the state."""
    fake_quant = _working(loaded)
    name, layer = next(iter(fake_quant.layers.items()))
    before = layer.pieces[0].codes.clone()
    (alpha,) = layer.begin_rounding()
    alpha.data.fill_(9.0)
    layer.finish_rounding()
    codes = fake_quant.freeze("test", W4A8).layers[name].parts[0].weight
    assert torch.equal(layer.pieces[0].codes, codes)
    assert bool((codes >= before).all())
    assert not torch.equal(before, codes)


def test_weights_are_rounded_on_a_grid_of_the_methods_own(loaded):
    """Codes are the nearest ones; a layer of two parts needs two grids."""
    fake_quant = _working(loaded, split=True)
    layer = next(layer for layer in fake_quant.layers.values() if len(layer.pieces) == 2)
    channels = len(layer.pieces[0].scale)
    scale = torch.full((channels,), 0.0625)
    zero_point = torch.full((channels,), 7, dtype=torch.int32)
    layer.set_weight_grids([(scale, zero_point)] * 2)
    for part in layer.frozen().parts:
        weight = layer.pieces[0 if part.start == 0 else 1].weight
        assert torch.equal((torch.round(weight * 16) + 7).clamp(0, 15).byte(), part.weight)
        assert torch.equal(scale, part.scale)
        assert torch.equal(zero_point, part.zero_point)
    with pytest.raises(QuantizationError, match="has 2 parts and needs as many weight grids"):
        layer.set_weight_grids([(scale, zero_point)])


def test_network_of_16_bits_is_refused(loaded):
    """Nothing could be learned in it."""
    loaded.network.to(torch.bfloat16)
    with pytest.raises(QuantizationError, match="network in float32"):
        _working(loaded)
