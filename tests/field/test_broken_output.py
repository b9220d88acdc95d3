"""Models and methods whose values are not numbers: the cell fails and says where."""

import dataclasses

import numpy as np
import pytest
import torch

from tfq_bench.errors import CalibrationError, CellError, QuantizationError
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.pipeline.quantize import quantize
from tfq_bench.pipeline.sample import draw
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.quant.rtn import RoundToNearest
from tfq_bench.quant.state.qparams import ActivationQParams
from tfq_bench.store.shapes import LEVEL
from tfq_bench.testing.inputs import tiny_state
from tfq_bench.testing.tiny import TinyModel, load_tiny
from tfq_bench.types import CalibrationData, CalibrationNeeds, Scheme


def silent(*_):
    """Progress that nobody looks at."""


def sampled(decode):
    """What is drawn of images 4 to 7 when `decode` stands for the model's own."""
    loaded = load_tiny(steps=2)
    loaded.model.decode = decode
    return draw(loaded, simulate(loaded, None), range(4, 8), seed=0, batch=2, progress=silent)


def good(x):
    """The tiny model's own decoder."""
    return TinyModel.decode(None, x)


def spoilt(value, row=1):
    """A decoder with `value` in one image of each batch, before the cast."""

    def decode(x):
        x = x.clone()
        x[row, 0, 3, 3] = value
        return good(x)

    return decode


def late(x):
    """NaN from the last step before the cast."""
    scaled = (x.clamp(-1, 1) + 1) * 127.5
    scaled = scaled / torch.where(scaled > 200, 0.0, 1.0) * 0
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1)


def through_numpy(x):
    """A decoder that casts in numpy, as image processors do."""
    x = (x / 0).permute(0, 2, 3, 1)
    with np.errstate(all="ignore"):
        return torch.from_numpy((x.numpy() * 0).astype(np.uint8))


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (spoilt(float("nan")), "decoding gave values that are not finite for image 5"),
        (spoilt(float("inf"), row=0), "not finite for image 4"),
        (spoilt(float("-inf")), "not finite for image 5"),
        (late, "decoding gave values that are not finite for images 4, 5"),
        (through_numpy, "decoding gave values that are not finite"),
        (lambda x: x.permute(0, 2, 3, 1), r"expected uint8 \[2, H, W, 3\], found torch.float32"),
        (lambda x: good(x).permute(0, 3, 1, 2), r"found torch.uint8 \[2, 3, 8, 8\]"),
        (lambda x: good(x)[:1], r"found torch.uint8 \[1, 8, 8, 3\]"),
        (lambda x: good(x)[..., :1], r"found torch.uint8 \[2, 8, 8, 1\]"),
        (lambda x: good(x).to(torch.int16), r"found torch.int16"),
        (lambda x: good(x)[:, :0], r"found torch.uint8 \[2, 0, 8, 3\]"),
        (lambda x: good(x).numpy(), "expected a tensor, found ndarray"),
        (lambda x: None, "expected a tensor, found NoneType"),
    ],
)
def test_decoders(decode, message):
    """Bytes hide what they were; the images are named all the same."""
    with pytest.raises(CellError, match=message):
        sampled(decode)


def test_sizes_that_differ():
    """Two batches of different sizes are no array of images."""
    sizes = iter((8, 6))
    with pytest.raises(CellError, match="several sizes"):
        sampled(lambda x: good(x)[:, : next(sizes)])


def test_a_good_decoder_is_believed():
    """The same bytes as the model's own, whatever is looked at on the way."""
    loaded = load_tiny(steps=2)
    lowered = simulate(loaded, None)
    plain = draw(loaded, lowered, range(4, 8), seed=0, batch=2, progress=silent)
    assert torch.equal(plain, sampled(good))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_networks(value):
    """One image of a batch overflows: it is named, not its neighbour."""
    loaded = load_tiny(steps=2)
    loaded.sampler.final = lambda x: x.index_fill(0, torch.tensor([1]), value)
    with pytest.raises(CellError, match=r"the network gave values .* for images? 5\."):
        draw(loaded, simulate(loaded, None), range(4, 6), seed=0, batch=2, progress=silent)


def test_calibration_data():
    """The step and the image are named."""
    loaded = load_tiny(steps=4)
    step = loaded.sampler.step
    loaded.sampler.step = lambda x, p, k, z: step(x, p, k, z) / (0.0 if k == 1 else 1.0)
    needs = CalibrationNeeds(samples=((0, 0), (1, 0), (2, 1)))
    with pytest.raises(CalibrationError, match="first at step 2 of image 1"):
        capture(loaded, needs, seed=0, batch=2, progress=silent)


def test_conditions():
    """What a model is conditioned on is data too."""
    loaded = load_tiny(steps=4)
    loaded.model.conditions = lambda images, device: {
        "text": torch.full((len(images), 4), torch.nan)
    }
    needs = CalibrationNeeds(samples=((0, 0),))
    with pytest.raises(CalibrationError, match="condition 'text' of image 0"):
        capture(loaded, needs, seed=0, batch=2, progress=silent)


class Given:
    """A quantizer that returns what it is given."""

    def __init__(self, state):
        self.state = state

    def quantize(self, loaded, data, **more):
        return self.state


def returned(change):
    """The error when a quantizer returns a changed state."""
    loaded = load_tiny()
    state = tiny_state(loaded, Scheme(wbits=8, abits=8))
    empty = torch.empty(0)
    data = CalibrationData(x=empty, timestep=empty, step=empty, image=empty, condition={})
    with pytest.raises(QuantizationError) as caught:
        quantize(Given(change(state)), loaded, data, seed=0, progress=silent)
    return str(caught.value)


def without(state, name):
    """`state` less one layer."""
    layers = {key: layer for key, layer in state.layers.items() if key != name}
    return dataclasses.replace(state, layers=layers)


def exempt(state, name, reason):
    """`state` with one layer exempt."""
    return dataclasses.replace(without(state, name), exempt={**state.exempt, name: reason})


def another_kind(state):
    """`state` with one layer in the place of another."""
    layer = dataclasses.replace(state.layers["first.conv1"], name="first.time")
    return dataclasses.replace(state, layers={**state.layers, "first.time": layer})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: None, "expected to return a QuantizedState, found NoneType"),
        (lambda state: {"layers": {}}, "found dict"),
        (lambda state: without(state, "first.conv1"), r"forgets 1 of the .* \['first.conv1'\]"),
        (lambda state: exempt(state, "first.conv1", " "), r"without a reason: \['first.conv1'\]"),
        (
            lambda state: exempt(state, "nosuch", "why"),
            r"layers that the model lacks: \['nosuch'\]",
        ),
        (another_kind, "layer 'first.time' is linear"),
        (lambda state: dataclasses.replace(state, model="x\n::error::"), "of model x ::error::,"),
    ],
)
def test_states_that_do_not_fit(change, message):
    """What a quantizer returns is held against the model, in words."""
    import re

    assert re.search(message, told := returned(change)), told


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 1e-40, 3e38])
@pytest.mark.parametrize("where", ["weight", "activation", "bias"])
def test_scales_that_are_no_scales(value, where):
    """Zero, negative, not finite, or so small or large that nothing they give is finite."""
    layer = tiny_state(load_tiny(), Scheme(wbits=8, abits=8)).layers["first.conv1"]
    (part,) = layer.parts
    bad = torch.tensor([value])
    if where == "activation":
        with pytest.raises(QuantizationError, match="scales must be finite and positive"):
            ActivationQParams(bits=8, scale=bad, zero_point=torch.zeros(1, dtype=torch.int32))
        return
    if where == "bias":
        if np.isfinite(value):
            return  # a bias may be any number
        with pytest.raises(QuantizationError, match=r"'first.conv1': the bias must be float32 and"):
            dataclasses.replace(layer, bias=bad.expand(16).contiguous())
        return
    part = dataclasses.replace(part, scale=bad.expand(16).contiguous())
    with pytest.raises(QuantizationError, match=r"'first.conv1': weight: scales must be finite"):
        dataclasses.replace(layer, parts=(part,))


def test_a_network_that_overflows_while_it_is_observed():
    """A method finds no ranges of values that are not numbers."""
    loaded = load_tiny()
    quantizer = RoundToNearest(scheme=Scheme(wbits=8, abits=8))
    needs = quantizer.calibration_needs(loaded, images=2)
    data = capture(loaded, needs, seed=0, batch=2, progress=silent)
    loaded.network.first.conv1.weight.data.fill_(float("inf"))
    with pytest.raises((CalibrationError, QuantizationError), match="first"):
        quantize(quantizer, loaded, data, seed=0, progress=silent)


@pytest.mark.parametrize("level", [0.0, 1e-300, 1e-17, 1.0, 1 - 2**-53])
def test_a_level_that_spans_nothing_is_not_read(level):
    """Its quantile is zero or infinite, by which a gate would divide."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        LEVEL(level, "interval.level")
