"""Norms to codes: the statement in torch against torch's own norms, then quantized."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tfq_bench_cuda.kernels import norms
from tfq_bench_cuda.kernels.norms import Table
from tfq_bench_cuda.kernels.reference import ReferenceKernels
from tfq_bench_cuda.kernels.specs import QuantizeSpec

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture
def generator():
    """The same numbers in every run."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def table(generator):
    """Makes a table of random scales: `table(start, channels, bits, steps)`."""

    def make(start, channels, bits=8, steps=3):
        top = 2**bits
        inverse = (torch.rand(steps, generator=generator) + 0.5) * top / 6
        zero_point = torch.randint(0, top, (steps,), generator=generator, dtype=torch.int32)
        return Table(
            start=start, channels=channels, bits=bits, inverse=inverse, zero_point=zero_point
        )

    return make


@pytest.fixture
def readers(table):
    """Tables of one, two or three readers of `[.., channels]`: whole, and split at a third."""

    def make(count, channels):
        part = max(1, channels // 3)
        made = (table(0, channels), table(0, part, 4, 1), table(part, channels - part, 6))
        return made[:count]

    return make


def quantized(y, table, step):
    """int8 codes of `y` by `ReferenceKernels.quantize`."""
    spec = QuantizeSpec(
        planes=False,
        total=y.shape[-1],
        start=table.start,
        channels=table.channels,
        dtype="float32",
        bits=table.bits,
    )
    now = torch.tensor([min(step, len(table.inverse) - 1)])
    rows = y.reshape(-1, y.shape[-1])
    code = ReferenceKernels().quantize(spec, rows, now, table.inverse, table.zero_point)
    return code.view(*y.shape[:-1], -1)


def assert_codes_of(y, tables, step, found, tolerance=3e-5):
    """Each code lies between those of `y` a little less and a little more."""
    assert len(tables) == len(found)
    for table, code in zip(tables, found, strict=True):
        slack = tolerance * (1 + y.abs())
        least = quantized((y - slack).float(), table, step)
        most = quantized((y + slack).float(), table, step)
        assert least.shape == code.shape
        assert code.dtype == torch.int8
        assert bool(((least <= code) & (code <= most)).all())


def group_norm(x, weight, bias, groups, silu):
    """What torch makes of channels that come first, float64 `[B, P, C]`."""
    y = F.group_norm(x.double().mT, groups, weight.double(), bias.double(), 1e-5).mT
    return F.silu(y) if silu else y


def normal(generator, *shape, dtype=torch.float32, mean=0.5, std=2.0):
    """Numbers with a mean that is not 0."""
    return (torch.randn(shape, generator=generator) * std + mean).to(dtype)


@pytest.mark.parametrize("step", [0, 2, 7])
def test_rows_have_the_codes_of_the_quantization_kernel(table, generator, step):
    """Strided rows, parts of the channels; steps beyond a table have its last entry."""
    x = normal(generator, 7, 90, std=0.01)[:, :80]
    x[::2] *= 1000
    tables = [table(0, 80), table(0, 33, 4, 1), table(33, 47, 2)]
    found = norms.row_codes(x, step=torch.tensor([step]), tables=tables)
    for one, code in zip(tables, found, strict=True):
        assert torch.equal(quantized(x, one, step), code)


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_group_norm_is_torchs_then_quantized(readers, generator, dtype, silu):
    """Pixels with channels last give the codes of torch's norm over channels first."""
    x = normal(generator, 2, 35, 96, dtype=dtype)
    weight, bias = normal(generator, 96), normal(generator, 96)
    tables = readers(3, 96)
    found = norms.group_norm_codes(
        x, weight, bias, groups=8, eps=1e-5, silu=silu, step=torch.tensor([1]), tables=tables
    )
    assert_codes_of(group_norm(x, weight, bias, 8, silu), tables, 1, found)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("modulated", [False, True])
def test_layer_norm_is_torchs_then_modulated_and_quantized(readers, generator, affine, modulated):
    """With or without weights; scale and shift may be halves of one tensor."""
    x = normal(generator, 3, 11, 72)
    weight, bias = (normal(generator, 72), normal(generator, 72)) if affine else (None, None)
    scale, shift = normal(generator, 3, 144).chunk(2, dim=1) if modulated else (None, None)
    tables = readers(3, 72)
    found = norms.layer_norm_codes(
        x, weight, bias, eps=1e-6, step=torch.tensor([0]), tables=tables, scale=scale, shift=shift
    )
    y = F.layer_norm(x, (72,), weight, bias, 1e-6)
    if modulated:
        y = y * (1 + scale[:, None]) + shift[:, None]
    assert_codes_of(y, tables, 0, found)


def test_what_the_kernels_do_not_take_is_said(table, generator):
    """Layouts, types, groups, ranges of channels, widths of weights and of tables."""
    x, weight, step = normal(generator, 2, 6, 32), torch.ones(32), torch.tensor([0])
    settings = {"eps": 1e-5, "step": step, "tables": [table(0, 32)]}
    with pytest.raises(ValueError, match=r"channels last and contiguous.*strides \(192, 1, 6\)"):
        norms.layer_norm_codes(x.view(2, 32, 6).mT, weight, weight, **settings)
    with pytest.raises(ValueError, match=r"found .*torch.float64"):
        norms.row_codes(x[0].double(), step=step, tables=[table(0, 32)])
    with pytest.raises(ValueError, match="found 5 groups of 32 channels"):
        norms.group_norm_codes(x, weight, weight, groups=5, silu=False, **settings)
    with pytest.raises(ValueError, match="channels 0 to 32, found one of 16 to 48"):
        norms.row_codes(x[0], step=step, tables=[table(16, 32)])
    with pytest.raises(ValueError, match=r"expected bias \[32\], found \[31\]"):
        norms.layer_norm_codes(x, weight, weight[1:], **settings)
    with pytest.raises(ValueError, match=r"expected scale \[2, 32\].*found \[1, 32\]"):
        norms.layer_norm_codes(x, None, None, scale=weight[None], **settings)
    with pytest.raises(ValueError, match="2 to 8 bits, found 9"):
        table(0, 32, bits=9)
    with pytest.raises(ValueError, match=r"zero point int32 \[T\], found"):
        Table(start=0, channels=1, bits=8, inverse=torch.ones(2), zero_point=torch.zeros(2))
