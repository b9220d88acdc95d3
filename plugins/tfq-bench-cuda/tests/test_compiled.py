"""What the compiler makes of the kernels, without a GPU: instructions, copies, no fused rounding.

Needs the extra `tilelang` of this distribution (requirements-test.txt installs it).
"""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
import torch

from tfq_bench_cuda.kernels.borders import Geometry
from tfq_bench_cuda.kernels.compiled import compile_ptx, generate, instruction, load, toolkit
from tfq_bench_cuda.kernels.specs import ConvSpec, Ending, LinearSpec, QuantizeSpec, Tile

SQUARE = Geometry(kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1))
HOPPER = Tile(m=128, n=160, k=64, stages=4, threads=256)
AMPERE = Tile(m=64, n=64, k=64, stages=3, threads=128)


def linear(tile: Tile) -> LinearSpec:
    """A layer of SD-XL's width, the second part of a split one in bfloat16."""
    return LinearSpec(n=320, k=640, ending=Ending(out="bfloat16", partial=True), tile=tile)


def conv(tile: Tile, *, gather: bool) -> ConvSpec:
    """A padded 3x3 convolution."""
    return ConvSpec(n=320, c=320, geometry=SQUARE, gather=gather, ending=Ending(), tile=tile)


def products(ptx: str) -> set[str]:
    """The matrix instructions of a kernel, without their shapes."""
    found = re.findall(r"\b(wgmma\.mma_async|mma\.sync)[\w.]*\.(s8\.s8[\w.]*)", ptx)
    return {f"{name} {types}" for name, types in found}


def test_the_wheel_of_the_compiler_is_found():
    """Its version is the one asked for, so no other `nvcc` on the PATH is used."""
    home = toolkit()
    assert home is not None
    assert (home / "bin" / "nvcc").is_file()
    assert (home / "include" / "cuda_runtime.h").is_file()


@pytest.mark.parametrize(
    ("spec", "copies"),
    [
        (linear(HOPPER), {"cp.async.bulk.tensor.2d"}),
        (conv(HOPPER, gather=False), {"cp.async.bulk.tensor.2d", "cp.async.bulk.tensor.4d"}),
    ],
    ids=["linear", "conv2d"],
)
def test_hopper_kernels_use_wgmma_and_the_copy_engine(spec, copies):
    """int8 by int8 into int32, the filter's pixels by TMA in im2col mode."""
    source, ptx = compile_ptx(spec, "sm_90a")
    assert instruction(source) == "wgmma"
    assert {"wgmma.mma_async s8.s8"} == products(ptx)
    assert copies == set(re.findall(r"cp\.async\.bulk\.tensor\.\dd", ptx))
    assert ("im2col" in ptx) == isinstance(spec, ConvSpec)
    assert "fma.rn.f32" not in ptx


def test_ampere_kernels_use_mma_sync():
    """int8 by int8 into int32; pixels are gathered by loads that run ahead."""
    source, ptx = compile_ptx(conv(AMPERE, gather=True), "sm_80")
    assert instruction(source) == "mma.sync"
    assert {"mma.sync s8.s8.s32"} == products(ptx)
    assert "cp.async.cg" in ptx
    assert "fma.rn.f32" not in ptx


@pytest.mark.parametrize(
    ("spec", "arch"),
    [
        (linear(AMPERE), "sm_86"),
        (linear(AMPERE), "sm_89"),
        (conv(AMPERE, gather=True), "sm_90a"),
    ],
    ids=["sm_86", "sm_89", "gathered on sm_90a"],
)
def test_source_for_other_cards_uses_mma_sync(spec, arch):
    """What TileLang generates; the compiler's part is that of sm_80."""
    assert instruction(generate(spec, arch)) == "mma.sync"


def test_quantization_reads_and_writes_four_values_at_once():
    """Rounding is an addition, apart from the product as in the simulation, and no conversion."""
    spec = QuantizeSpec(planes=False, total=640, start=320, channels=320, dtype="float32", bits=8)
    _, ptx = compile_ptx(spec, "sm_90a")
    assert not re.search(r"cvt\.rni|cvt\.rzi", ptx)
    assert re.search(r"ld\.global[\w.]*\.v4\.f32", ptx)
    assert "fma.rn.f32" not in ptx


def test_planes_are_turned_over_in_shared_memory():
    """`[B, C, L]` to `[B, L, C]`: both sides in long runs."""
    spec = QuantizeSpec(planes=True, total=320, start=0, channels=320, dtype="bfloat16", bits=8)
    assert "__syncthreads" in generate(spec, "sm_80")


def ended(ending: Ending, tile: Tile) -> LinearSpec:
    """A layer with an ending."""
    return LinearSpec(n=320, k=640, ending=ending, tile=tile)


def test_each_ending_leaves_the_product_to_the_tensor_cores(ending):
    """On sm_90a `wgmma` and the copy engine, whatever is added behind; on sm_80 `mma.sync`."""
    specs: list[LinearSpec | ConvSpec] = [ended(ending, HOPPER)]
    if not ending.activation:
        specs.append(dataclasses.replace(conv(HOPPER, gather=False), ending=ending))
    for spec in specs:
        source = generate(spec, "sm_90a")
        assert instruction(source) == "wgmma"
        assert "tma_load" in source
    assert instruction(generate(ended(ending, AMPERE), "sm_80")) == "mma.sync"


@pytest.mark.parametrize(
    "ending",
    [
        Ending(residual="bfloat16", out="bfloat16"),
        Ending(partial=True, shift=True, gate=True, residual="float16", out="int8"),
    ],
    ids=str,
)
def test_endings_round_each_operation(ending):
    """No fused multiply-add; a thread reads two values of a residual at once; no spilled sums."""
    source, ptx = compile_ptx(ended(ending, HOPPER), "sm_90a")
    assert {"wgmma.mma_async s8.s8"} == products(ptx)
    assert "fma.rn.f32" not in ptx
    assert ".local" not in ptx
    assert "*(uint1*)(residual +" in source
    assert "tma_store" in source


def test_a_geglu_multiplies_values_and_gates_at_once():
    """One instruction of twice the width, so that rows are read from shared memory once."""
    tile = Tile(m=128, n=80, k=128, stages=4, threads=256)
    spec = LinearSpec(n=5120, k=1280, ending=Ending(activation="geglu", out="int8"), tile=tile)
    assert set(re.findall(r"kInt32, (\d+, \d+, \d+),", generate(spec, "sm_90a"))) == {"64, 160, 32"}


def test_a_kernel_has_no_argument_that_its_ending_does_not_ask_for():
    """What is not added is not read."""
    plain = generate(LinearSpec(n=320, k=640, ending=Ending(), tile=AMPERE), "sm_80")
    for name in ("partial", "shift", "gate", "residual", "next_inverse"):
        assert name not in plain


def test_erf_is_what_its_fit_says():
    """The rational function of a GEGLU's gate, in float64: `math.erf` within 4e-7 everywhere."""
    load()
    from tfq_bench_cuda.kernels.programs.activations import ERF_END, ERF_P, ERF_Q

    y = torch.linspace(-9, 9, 100_001, dtype=torch.float64)
    inside = y.clamp(-ERF_END, ERF_END)
    top, bottom = (
        sum(value * inside ** (2 * power) for power, value in enumerate(coefficients))
        for coefficients in (ERF_P, ERF_Q)
    )
    error = (inside * top / bottom - torch.erf(y / math.sqrt(2))).abs().max()
    assert error < 4e-7
