"""Where learning starts: ranges per part, symmetric or not, of the inputs really seen."""

from __future__ import annotations

import pytest
import torch

from tfq_bench.api import Scheme
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant import resolve
from tfq_bench.quant.working import WorkingNetwork
from tfq_bench.seeds import generator
from tfq_bench.testing.tiny import load_tiny
from tfq_bench_qdiffusion.calibration import uniform_needs
from tfq_bench_qdiffusion.presets import PAPER
from tfq_bench_qdiffusion.start import set_start_tables, take

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
    needs = uniform_needs(4, steps=4, samples=8, images=8)
    return capture(loaded, needs, seed=1, batch=8, progress=ignore)


def _tables(loaded, data, *, split=True, method="minmax", symmetric=False, batch=16, scheme=W4A8):
    """Activation tables of each layer's parts."""
    plan = resolve(PAPER, loaded.topology, scheme)
    working = WorkingNetwork(loaded, plan, split=split)
    set_start_tables(
        working,
        data,
        method=method,
        symmetric=symmetric,
        batch=batch,
        generator=generator(0, "test"),
        progress=ignore,
    )
    layers = working.freeze("test", scheme).layers
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
