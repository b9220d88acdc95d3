"""What activation ranges are of, and how often they are updated."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch

from tfq_bench.api import CalibrationData, CalibrationError, Scheme
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant import affine_from_range, fake_quantize
from tfq_bench.seeds import generator
from tfq_bench.testing.tiny import load_tiny
from tfq_bench_ptq4dm import quantizer as module
from tfq_bench_ptq4dm.calibration_set import calibration_set
from tfq_bench_ptq4dm.quantizer import Ptq4dm
from tfq_bench_ptq4dm.ranges import ClipRanges, clip_range

W4A8 = Scheme(wbits=4, abits=8)
W2A8 = Scheme(wbits=2, abits=8)  # the quantized part differs a lot from the float one
ALL_VALUES = 10**9


def ignore(fraction, text):
    """Progress that nobody looks at."""


def _quantize(loaded, quantizer, images=8):
    needs = quantizer.calibration_needs(loaded, images=images)
    data = capture(loaded, needs, seed=1, batch=images, progress=ignore)
    state = quantizer.quantize(loaded, data, generator=generator(0, "test"), progress=ignore)
    return data, state


def _calibration_inputs(loaded, quantizer, data, images=8):
    """The calibration set that `quantize` makes of the same generator."""
    drawn = quantizer._draw(loaded, images)
    return calibration_set(
        loaded, data, drawn, bare_timesteps=False, generator=generator(0, "test")
    )


def _input_of(loaded, network, name, inputs, tables):
    """What layer `name` reads when the layers in `tables` quantize what they read."""
    seen = []

    def quantize_with(table):
        def hook(_, arguments):
            code = torch.round(arguments[0] / table.scale) + table.zero_point
            return ((code.clamp(0, 2**table.bits - 1) - table.zero_point) * table.scale,)

        return hook

    handles = [
        network.get_submodule(earlier).register_forward_pre_hook(quantize_with(table))
        for earlier, table in tables.items()
    ]
    watched = network.get_submodule(name)
    handles.append(
        watched.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    )
    loaded.model.predict(network, inputs.x, inputs.timestep, inputs.condition)
    for handle in handles:
        handle.remove()
    return seen[0]


def _best_grid(x, bits):
    return affine_from_range(*clip_range(x.reshape(1, -1), bits), bits)


def _excess(x, table):
    """How much larger the error of x on the table's grid is than on the best, as a share."""
    errors = [
        float((fake_quantize(x, *grid, table.bits) - x).abs().pow(2.4).mean())
        for grid in ((table.scale, table.zero_point), _best_grid(x, table.bits))
    ]
    return errors[0] / errors[1] - 1


@torch.no_grad()
def test_ranges_are_of_inputs_from_the_quantized_part():
    """Layer by layer: quantized weights, all earlier inputs quantized, then the best clip."""
    loaded = load_tiny()
    quantizer = Ptq4dm(scheme=W2A8, samples=24, values=ALL_VALUES)
    data, state = _quantize(loaded, quantizer)
    inputs = _calibration_inputs(loaded, quantizer, data)
    network = copy.deepcopy(loaded.network)
    for name, layer in state.layers.items():
        weight = network.get_submodule(name).weight
        (part,) = layer.parts
        shape = (-1, *(1,) * (weight.dim() - 1))
        codes = part.weight.float() - part.zero_point.reshape(shape)
        weight.copy_(codes * part.scale.reshape(shape))
    tables, unlike_float = {}, 0
    for layer in loaded.topology.layers:
        found = state.layers[layer.name].parts[0].activation
        x = _input_of(loaded, network, layer.name, inputs, tables)
        # Sums in another order move a few values over a rounding border, and minima are flat.
        assert _excess(x, found) < 0.01
        tables[layer.name] = found
        float_x = _input_of(loaded, loaded.network, layer.name, inputs, {})
        unlike_float += _excess(float_x, found) > 0.05
    assert unlike_float > len(tables) / 4


@torch.no_grad()
def test_float_prefix_is_the_full_precision_network():
    """Each range is the best clip of what the layer reads there."""
    loaded = load_tiny()
    quantizer = Ptq4dm(scheme=W2A8, samples=24, values=ALL_VALUES, prefix="float")
    data, state = _quantize(loaded, quantizer)
    inputs = _calibration_inputs(loaded, quantizer, data)
    for name, layer in state.layers.items():
        x = _input_of(loaded, loaded.network, name, inputs, {})
        found = layer.parts[0].activation
        torch.testing.assert_close(_best_grid(x, found.bits)[0], found.scale)


@pytest.mark.parametrize("prefix", ["quantized", "float"])
@pytest.mark.parametrize(
    ("options", "updates"), [({}, 4), ({"samples": 300}, 2), ({"range_batch": 32}, 32)]
)
def test_ranges_are_updated_once_for_256_samples(monkeypatch, prefix, options, updates):
    """1,024 samples, as the preset `full` has, are four updates of each layer's range."""
    counted = Counter()

    class Counted(ClipRanges):
        def update(self, name, x):
            counted[name] += 1
            super().update(name, x)

    monkeypatch.setattr(module, "ClipRanges", Counted)
    loaded = load_tiny()
    _, state = _quantize(loaded, Ptq4dm(scheme=W4A8, values=64, prefix=prefix, **options))
    assert dict.fromkeys(state.layers, updates) == counted


def _with_inputs(shape):
    count = torch.zeros(300, dtype=torch.int64)
    return CalibrationData(
        x=torch.zeros(1).expand(300, *shape), timestep=count, step=count, image=count
    )


@pytest.mark.parametrize(
    ("shape", "batch"),
    [((3, 32, 32), 256), ((3, 64, 64), 256), ((4, 64, 64), 256), ((4, 128, 128), 64)],
)
def test_batches_of_large_inputs_are_smaller(shape, batch):
    """256 of pictures of 64 pixels and of latents of 64x64, 64 of latents of 128x128."""
    assert batch == Ptq4dm(scheme=W4A8)._batch(_with_inputs(shape))
    assert 7 == Ptq4dm(scheme=W4A8, range_batch=7)._batch(_with_inputs(shape))


@pytest.mark.parametrize("options", [{}, {"prefix": "float"}, {"iterations": 2}])
def test_without_samples_it_says_so(options):
    """The message asks for a calibration image."""
    loaded = load_tiny()
    nothing = _with_inputs(loaded.model.latent_shape)
    empty = CalibrationData(
        x=nothing.x[:0],
        timestep=nothing.timestep[:0],
        step=nothing.step[:0],
        image=nothing.image[:0],
    )
    with pytest.raises(CalibrationError, match="at least one calibration image"):
        Ptq4dm(scheme=W4A8, **options).quantize(
            loaded, empty, generator=generator(0, "test"), progress=ignore
        )
