"""Norms to codes: the statement in torch, and the Triton kernels against it.

The kernels' tests are marked `gpu`. One test here runs these same tests on the CPU, in Triton's
interpreter.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from tfq_bench_cuda.kernels import norms
from tfq_bench_cuda.kernels.norms import Table
from tfq_bench_cuda.kernels.reference import ReferenceKernels
from tfq_bench_cuda.kernels.specs import QuantizeSpec

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
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
    with pytest.raises(ValueError, match=r"further channels of \[2, 6, 32\].*found \[2, 5, 32\]"):
        norms.group_norm_codes(x, weight, weight, groups=4, silu=False, beside=x[:, :5], **settings)
    with pytest.raises(ValueError, match="2 to 8 bits, found 9"):
        table(0, 32, bits=9)
    with pytest.raises(ValueError, match=r"zero point int32 \[T\], found"):
        Table(start=0, channels=1, bits=8, inverse=torch.ones(2), zero_point=torch.zeros(2))


def launch():
    """The launching module: imported by tests of kernels alone, it loads Triton."""
    from tfq_bench_cuda.kernels import norm_launch

    return norm_launch


def moved(tables):
    """Tables on the device of the kernels."""
    return [
        Table(
            start=table.start,
            channels=table.channels,
            bits=table.bits,
            inverse=table.inverse.to(DEVICE),
            zero_point=table.zero_point.to(DEVICE),
        )
        for table in tables
    ]


def run(call, *tensors, step, tables, **settings):
    """Codes on the CPU, computed by the kernels."""
    tensors = [None if value is None else value.to(DEVICE) for value in tensors]
    step = torch.tensor([step], device=DEVICE)
    found = getattr(launch(), call)(*tensors, step=step, tables=moved(tables), **settings)
    return [code.cpu() for code in found]


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("images", "pixels", "channels", "groups", "dtype"),
    [
        (2, 100, 320, 32, torch.bfloat16),  # 10 channels a group, several blocks of pixels
        (3, 64, 64, 32, torch.float32),  # 2 channels a group
        (2, 49, 192, 32, torch.float16),  # 6
        (1, 5, 1280, 32, torch.bfloat16),  # fewer pixels than a tile is high
        (2, 70, 60, 4, torch.bfloat16),  # channels that fill no code
        (1, 130, 96, 1, torch.float32),  # one group
        (1, 33, 33, 33, torch.float16),  # instance norm
    ],
)
def test_group_norm_kernels_give_the_codes_of_the_norm(
    readers, generator, images, pixels, channels, groups, dtype
):
    """With and without SiLU, one to four readers, at and beyond the last step."""
    x = normal(generator, images, pixels, channels, dtype=dtype)
    weight, bias = normal(generator, channels), normal(generator, channels)
    readings = [*readers(3, channels), *readers(1, channels)]
    for silu, step, count in [(True, 0, 1), (False, 2, 2), (True, 9, 4)]:
        settings = {"groups": groups, "eps": 1e-5, "silu": silu}
        tables = readings[:count]
        found = run("group_norm_codes", x, weight, bias, step=step, tables=tables, **settings)
        assert_codes_of(group_norm(x, weight, bias, groups, silu), tables, step, found)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("first", "second", "groups", "dtype"),
    [
        (64, 32, 8, torch.float32),
        (40, 24, 4, torch.float16),  # the border lies within a group
        (320, 320, 32, torch.bfloat16),
    ],
)
def test_both_parts_of_a_concatenation_are_read_where_they_lie(
    table, generator, first, second, groups, dtype
):
    """Norm and rows give the bits that the copy gives, to one reader and to one of each part."""
    x = normal(generator, 2, 35, first, dtype=dtype)
    y = normal(generator, 2, 35, second, dtype=dtype, mean=3.0)
    both = torch.cat([x, y], dim=-1)
    weight, bias = normal(generator, first + second), normal(generator, first + second)
    settings = {"groups": groups, "eps": 1e-5, "silu": True, "step": 1}
    for tables in ([table(0, first + second)], [table(0, first, 4), table(first, second)]):
        settings["tables"] = tables
        expected = run("group_norm_codes", both, weight, bias, **settings)
        found = run("group_norm_codes", x, weight, bias, beside=y.to(DEVICE), **settings)
        assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))
        rows = {"step": 1, "tables": tables}
        expected = run("row_codes", both.flatten(0, 1), **rows)
        beside = y.flatten(0, 1).to(DEVICE)
        found = run("row_codes", x.flatten(0, 1), beside=beside, **rows)
        assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))


@pytest.mark.gpu
def test_a_large_mean_costs_no_digits(readers, generator, monkeypatch):
    """3,000 standard deviations from zero a sum of squares would leave no digit of the variance.

    Programs go over several tiles here, as they do over images of many pixels.
    """
    monkeypatch.setattr(launch(), "MOST_BLOCKS", 2)
    monkeypatch.setattr(launch(), "PROGRAMS", 2)
    x = normal(generator, 1, 1500, 64, mean=3000.0, std=1.0)
    weight, bias = normal(generator, 64), normal(generator, 64)
    tables = readers(1, 64)
    settings = {"groups": 8, "eps": 1e-5, "silu": True}
    found = run("group_norm_codes", x, weight, bias, step=0, tables=tables, **settings)
    y = group_norm(x, weight, bias, 8, silu=True)
    assert_codes_of(y, tables, 0, found, tolerance=2e-3)  # float32 holds 3,000 to 2e-4


@pytest.mark.gpu
def test_moments_survive_a_first_value_far_from_the_others(readers, generator):
    """Distances are measured from it, which costs digits but no more than float32 has to spare."""
    x = normal(generator, 1, 300, 64)
    x[:, 0] += 1000.0
    weight, bias = normal(generator, 64), normal(generator, 64)
    tables = readers(1, 64)
    settings = {"groups": 8, "eps": 1e-5, "silu": False}
    found = run("group_norm_codes", x, weight, bias, step=0, tables=tables, **settings)
    y = group_norm(x, weight, bias, 8, silu=False)
    assert_codes_of(y, tables, 0, found, tolerance=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("channels", "dtype"),
    [
        (32, torch.float32),
        (72, torch.bfloat16),
        (320, torch.float16),
        (600, torch.float32),  # two tiles a row, the second not full
        (1152, torch.bfloat16),
    ],
)
def test_layer_norm_kernels_give_the_codes_of_the_norm(readers, generator, channels, dtype):
    """With weights, or modulated per image, whose rows one program may mix."""
    x = normal(generator, 3, 5, channels, dtype=dtype)
    weight, bias = normal(generator, channels), normal(generator, channels)
    scale, shift = normal(generator, 3, 2 * channels, dtype=dtype).chunk(2, dim=1)
    tables = readers(3, channels)
    norm = F.layer_norm(x.double(), (channels,), eps=1e-6)
    found = run("layer_norm_codes", x, weight, bias, eps=1e-6, step=1, tables=tables)
    assert_codes_of(norm * weight + bias, tables, 1, found)
    modulation = {"scale": scale.to(DEVICE), "shift": shift.to(DEVICE)}
    found = run("layer_norm_codes", x, None, None, eps=1e-6, step=2, tables=tables, **modulation)
    y = norm * (1 + scale.double()[:, None]) + shift.double()[:, None]
    assert_codes_of(y, tables, 2, found)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("bits", "dtype"), [(2, torch.float16), (4, torch.bfloat16), (8, torch.float32)]
)
def test_row_kernels_give_the_bits_of_the_quantization_kernel(table, generator, dtype, bits):
    """Ties go to the even code, and far values to the last ones; rows are strided."""
    x = normal(generator, 77, 200, std=2.0**bits)
    x[::3] = x[::3].floor() + 0.5
    x[0, :4] = torch.tensor([1e30, -1e30, float("inf"), -float("inf")])
    x = x.to(dtype)
    ones = torch.ones(2)
    whole = Table(
        start=3, channels=150, bits=bits, inverse=ones, zero_point=torch.tensor([0, 2]).int()
    )
    tables = [whole, table(0, 160, bits, 1)]
    for step in (0, 1):
        wide = x.to(DEVICE)[:, :160]
        found = launch().row_codes(
            wide, step=torch.tensor([step], device=DEVICE), tables=moved(tables)
        )
        for one, code in zip(tables, found, strict=True):
            assert torch.equal(quantized(x[:, :160].float(), one, step), code.cpu())


@pytest.mark.gpu
def test_a_graph_of_a_norm_follows_step_and_input(readers, generator):
    """Nothing is read on the host: captured once, replayed at another step with other pixels."""
    x = normal(generator, 2, 100, 64).cuda()
    weight, bias = normal(generator, 64).cuda(), normal(generator, 64).cuda()
    tables = readers(2, 64)
    step = torch.tensor([0], device="cuda")
    settings = {"groups": 8, "eps": 1e-5, "silu": True, "step": step, "tables": moved(tables)}
    norms.group_norm_codes(x, weight, bias, **settings)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        codes = norms.group_norm_codes(x, weight, bias, **settings)
    for index in (2, 1):
        x.normal_()
        step.fill_(index)
        graph.replay()
        y = group_norm(x.cpu(), weight.cpu(), bias.cpu(), 8, silu=True)
        assert_codes_of(y, tables, index, [code.cpu() for code in codes])


def test_the_kernels_pass_their_gpu_tests_in_the_interpreter():
    """On the CPU, whole kernels; only what needs CUDA graphs is left to a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-k", "not graph", __file__]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d\d passed", done.stdout)
