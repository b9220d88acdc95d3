"""Parameters of a network's inputs: per part, per group of samples, of what is really seen."""

from __future__ import annotations

import pytest
import torch

from tfq_bench.errors import CalibrationError
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant.learn.activation_qparams import by_step, set_activation_qparams, take
from tfq_bench.quant.learn.fake_quant_network import FakeQuantNetwork
from tfq_bench.quant.policy import UNIFORM, resolve
from tfq_bench.seeds import generator
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import CalibrationNeeds, Scheme

W4A8 = Scheme(wbits=4, abits=8)


def ignore(fraction, text):
    """Progress that nobody looks at."""


@pytest.fixture(scope="module")
def loaded():
    """The tiny model; `second` reads a concatenation of 16 and 16 channels."""
    return load_tiny()


@pytest.fixture(scope="module")
def data(loaded):
    """Eight images at each of four steps."""
    needs = CalibrationNeeds(
        samples=tuple((step, image) for step in range(4) for image in range(8))
    )
    return capture(loaded, needs, seed=1, batch=8, progress=ignore)


def _working(loaded, *, split=True, scheme=W4A8):
    return FakeQuantNetwork(loaded, resolve(UNIFORM, loaded.topology, scheme), split=split)


def _tables(
    loaded,
    data,
    *,
    split=True,
    method="minmax",
    symmetric=False,
    scheme=W4A8,
    groups=None,
    names=None,
):
    """Activation tables of each layer's parts."""
    fake_quant = _working(loaded, split=split, scheme=scheme)
    set_activation_qparams(
        fake_quant,
        data,
        fake_quant.layers if names is None else names,
        groups=[torch.arange(len(data.x))] if groups is None else groups,
        method=method,
        symmetric=symmetric,
        batch=16,
        generator=generator(0, "test"),
        progress=ignore,
    )
    layers = fake_quant.freeze("test", scheme).layers
    return {name: [part.activation for part in layer.parts] for name, layer in layers.items()}


def test_halves_have_their_own_ranges(loaded, data):
    """The wider half of a split input has the unsplit scale, the other a smaller one."""
    first, second = _tables(loaded, data)["second.shortcut"]
    (whole,) = _tables(loaded, data, split=False)["second.shortcut"]
    widths = [float(table.scale) for table in (first, second)]
    assert min(widths) < 0.9 * float(whole.scale)
    assert max(widths) <= float(whole.scale) * (1 + 1e-6)


def test_symmetric_tables_have_the_middle_zero_point(loaded, data):
    """Symmetric codes are 128 +- 127 at 8 bits; asymmetric ones fit the range."""
    symmetric = _tables(loaded, data, symmetric=True)
    assert {128} == {int(table.zero_point) for held in symmetric.values() for table in held}
    free = _tables(loaded, data)
    assert len({int(table.zero_point) for held in free.values() for table in held}) > 1


def test_following_range_forgets_slowly(loaded, data):
    """The range of `ema` over two batches is 0.95 of the first's and 0.05 of the second's."""
    halves = [torch.arange(16), torch.arange(16, 32)]
    first, second = (_tables(loaded, take(data, half))["conv_in"][0].scale for half in halves)
    (table,) = _tables(loaded, data, method="ema")["conv_in"]
    # The scale of an asymmetric range is linear in its ends.
    assert torch.allclose(0.95 * first + 0.05 * second, table.scale, rtol=1e-5)
    assert not torch.allclose(first, second, rtol=1e-3)


def test_float_activations_have_no_tables(loaded, data):
    """W4A32 gets none."""
    tables = _tables(loaded, data, scheme=Scheme(wbits=4))
    assert {None} == {table for held in tables.values() for table in held}


def test_each_group_has_an_entry_of_its_own(loaded, data):
    """Entry t of a table per step is the static one of that step's samples alone."""
    groups = by_step(data, 4)
    (table,) = _tables(loaded, data, groups=groups)["conv_in"]
    alone = [_tables(loaded, take(data, rows))["conv_in"][0] for rows in groups]
    assert torch.equal(torch.cat([one.scale for one in alone]), table.scale)
    assert torch.equal(torch.cat([one.zero_point for one in alone]), table.zero_point)
    assert len(table.scale.unique()) == 4


def test_only_the_named_layers_are_touched(loaded, data):
    """A method may find the parameters of other layers elsewhere."""
    tables = _tables(loaded, data, names=["conv_in"])
    assert {"conv_in"} == {name for name, held in tables.items() if held != [None] * len(held)}


def test_inputs_are_those_behind_quantized_weights(loaded, data):
    """Ranges follow the fake-quantized network's weights, not the full-precision ones'."""
    (fine,) = _tables(loaded, data, scheme=Scheme(wbits=8, abits=8))["conv_out"]
    (coarse,) = _tables(loaded, data, scheme=Scheme(wbits=2, abits=8))["conv_out"]
    assert not torch.equal(fine.scale, coarse.scale)


def test_a_step_without_samples_is_named(loaded, data):
    """Instead of a table with a hole."""
    few = take(data, torch.nonzero(data.step != 2).flatten())
    with pytest.raises(CalibrationError, match="no samples of sampler step 2"):
        _tables(loaded, few, groups=by_step(few, 4))
