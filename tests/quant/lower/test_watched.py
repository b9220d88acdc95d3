"""Each layer against exact integer sums, where whole runs of the tiny model do not come."""

import dataclasses

import pytest
import torch
from torch import nn

from tfq_bench.errors import LoweringError
from tfq_bench.quant.lower import exact_call
from tfq_bench.quant.lower.exact_call import ExactCall
from tfq_bench.quant.lower.simulate import SimulatedLayer, simulate
from tfq_bench.quant.lower.watched import watched_layers
from tfq_bench.quant.state.qparams import ActivationQParams
from tfq_bench.quant.state.quantized_state import LayerPart, QuantizedLayer
from tfq_bench.testing.inputs import tiny_state
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import Scheme
from tfq_bench.types.networks import StepCursor


def run(loaded, state, lowered, step=0):
    """One call of the network at a step; what was seen."""
    lowered.step.set(step)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), watched_layers(loaded, state, lowered) as watch:
        loaded.model.predict(lowered.network, x, torch.full((2,), 500), {})
    return watch


def test_tables_by_step_are_read_at_the_step():
    """A layer that always reads the first row is right at the first step only."""
    loaded = load_tiny()
    state = tiny_state(loaded, Scheme(wbits=4, abits=8))
    layer = state.layers["first.conv1"]
    (part,) = layer.parts
    rising = part.activation.scale * torch.tensor([1.0, 1.01, 1.02, 1.03])
    table = ActivationQParams(bits=8, scale=rising, zero_point=part.activation.zero_point.repeat(4))
    part = dataclasses.replace(part, activation=table)
    layers = {**state.layers, layer.name: dataclasses.replace(layer, parts=(part,))}
    state = dataclasses.replace(state, layers=layers)
    assert run(loaded, state, simulate(loaded, state), step=2).worst.share < 0.1
    lowered = simulate(loaded, state)
    lowered.network.first.conv1._step = StepCursor("cpu")
    run(loaded, state, lowered, step=0)
    with pytest.raises(LoweringError, match=r"'first.conv1' does not compute"):
        run(loaded, state, lowered, step=2)


def test_only_the_layer_that_differs_is_named(round_to_nearest, loaded):
    """Each layer is held against the sums of its own input, so one wrong weight does not spread."""
    state = round_to_nearest(8, 8)
    lowered = simulate(loaded, state)
    lowered.network.second.conv1.weight_0 += 1
    others = [name for name in state.layers if name != "second.conv1"]
    x, t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.zeros(2)
    with watched_layers(loaded, state, lowered, layers=others) as watch:
        loaded.model.predict(lowered.network, x, t, {})
    assert set(others) == set(watch.checks)
    with pytest.raises(LoweringError, match=r"'second.conv1' does not compute"):
        run(loaded, state, lowered)
    assert not any(module._forward_hooks for module in lowered.network.modules())


@pytest.mark.parametrize("wbits", [2, 4, 8])
def test_weights_only_are_told_from_full_precision(wbits):
    """Without activation codes there are no integers: a tenth of the weights' own rounding."""
    loaded = load_tiny()
    state = tiny_state(loaded, Scheme(wbits=wbits, abits=32))
    assert run(loaded, state, simulate(loaded, state)).worst.share < 0.01
    lowered = simulate(loaded, state)
    lowered.network.second.conv2 = load_tiny().network.second.conv2
    with pytest.raises(LoweringError, match=r"'second.conv2' does not compute") as caught:
        run(loaded, state, lowered)
    assert 3 < float(str(caught.value).split("size, ")[1].split()[0]) < 30


def test_large_layers_are_seen_on_some_channels(monkeypatch):
    """The budget bounds the work; what is looked at still must be right."""
    loaded = load_tiny()
    state = tiny_state(loaded, Scheme(wbits=8, abits=8))
    monkeypatch.setattr(exact_call, "BUDGET", 2 * 64 * 9 * 16 * 4)
    assert run(loaded, state, simulate(loaded, state)).worst.share < 0.1
    lowered = simulate(loaded, state)
    conv = lowered.network.first.conv1
    conv.weight_scale_0 = conv.weight_scale_0 * 1.1  # the state's own tensor stays
    with pytest.raises(LoweringError, match=r"'first.conv1'"):
        run(loaded, state, lowered)


def deep(terms, groups=1):
    """A layer with as many terms a sum, its sums beyond what float32 holds exactly."""
    source = torch.Generator().manual_seed(0)
    original = nn.Conv2d(terms, 4, 1, groups=groups, bias=False)
    layer = QuantizedLayer(
        name="deep",
        kind="conv2d",
        wbits=8,
        parts=(
            LayerPart(
                start=0,
                stop=terms,
                weight=torch.randint(
                    200, 256, (4, terms // groups, 1, 1), generator=source, dtype=torch.uint8
                ),
                scale=torch.full((4,), 0.01),
                zero_point=torch.full((4,), 128, dtype=torch.int32),
                activation=ActivationQParams(
                    bits=8, scale=torch.ones(1), zero_point=torch.zeros(1, dtype=torch.int32)
                ),
            ),
        ),
    )
    x = torch.randint(100, 256, (2, terms, 4, 4), generator=source).float()
    return layer, original, x


@pytest.mark.parametrize("groups", [1, 2])
def test_fallbacks_may_round_sums_that_float32_cannot_hold(groups):
    """40,000 products added in float pass as a fallback; a kernel must be exact."""
    layer, original, x = deep(40_000, groups)
    found = SimulatedLayer(layer, original, StepCursor("cpu"))(x)
    call = ExactCall(layer, original, x, 0, kernel=False)
    assert float(call.expected.abs().max() / 0.01) > 2**24
    assert call.compare(found).share <= 1
    exact = ExactCall(layer, original, x, 0, kernel=True)
    assert exact.compare(exact.expected.float()).share < 1
    with pytest.raises(LoweringError, match=r"'deep' does not compute"):
        exact.compare(exact.expected.float() + 40)


def test_an_input_on_a_border_may_take_either_code():
    """Dividing by the scale and multiplying by its inverse round some values differently."""
    layer, original, x = deep(64)
    on_border = x + 0.5
    call = ExactCall(layer, original, on_border, 0, kernel=True)
    down = ExactCall(layer, original, x, 0, kernel=True).expected
    assert call.compare(down.float()).share <= 1
    with pytest.raises(LoweringError, match="does not compute"):
        call.compare((down * 1.2).float())


@pytest.mark.parametrize("found", [None, torch.zeros(2, 3, 4, 4), torch.zeros(4, 4)])
def test_another_shape(found):
    """It is a sentence, whatever came back."""
    layer, original, x = deep(64)
    with pytest.raises(LoweringError, match=r"'deep': expected shape \(2, 4, 4, 4\), found"):
        ExactCall(layer, original, x, 0, kernel=True).compare(found)
