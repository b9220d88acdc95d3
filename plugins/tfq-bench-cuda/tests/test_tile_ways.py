"""Tiles that share a multiprocessor or run ahead: what is compiled of them."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

import pytest
import torch

from tfq_bench_cuda.kernels.compiled import compile_ptx, generate, load, toolkit
from tfq_bench_cuda.kernels.operands import Additions, Factors
from tfq_bench_cuda.kernels.reference import ReferenceKernels
from tfq_bench_cuda.kernels.runtime import Kernels
from tfq_bench_cuda.kernels.specs import ConvSpec, Ending, LinearSpec, Tile
from tfq_bench_cuda.kernels.wider import other_pipelines
from tfq_bench_cuda.machine import check_machine
from tfq_bench_cuda.products import SQUARE

ALONE = Tile(m=128, n=160, k=128, stages=4, threads=256, whole_rows=True)
PAIRED = Tile(m=128, n=80, k=128, stages=3, threads=128, whole_rows=True)
WAYS = {
    "two resident": replace(PAIRED, resident=2),
    "ahead": replace(ALONE, ahead=True),
    "ahead, two resident": replace(PAIRED, ahead=True, resident=2),
}
GEGLU = Ending(activation="geglu", out="int8")
RESIDUAL = Ending(residual="bfloat16", out="bfloat16")


def spec(tile: Tile, ending: Ending) -> LinearSpec:
    """A layer of SD-XL's inner blocks."""
    return LinearSpec(n=1280, k=1280, ending=ending, tile=tile)


def conv(tile: Tile) -> ConvSpec:
    """A padded 3x3 convolution."""
    return ConvSpec(n=320, c=320, geometry=SQUARE, gather=False, ending=RESIDUAL, tile=tile)


def spilled(ptx: str, folder) -> set[str]:
    """Bytes of registers that the assembler put into memory, as it says them."""
    file = folder / "kernel.ptx"
    file.write_text(ptx)
    home = toolkit()
    assert home is not None
    command = [home / "bin" / "ptxas", "-v", "-arch=sm_90a", file, "-o", folder / "kernel.cubin"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stderr
    return set(re.findall(r"(\d+) bytes spill", said))


@pytest.mark.parametrize("ending", [GEGLU, RESIDUAL], ids=str)
@pytest.mark.parametrize("tile", WAYS.values(), ids=WAYS)
def test_registers_suffice(tile, ending, tmp_path):
    """None is spilled; the launch bounds say how many blocks a multiprocessor holds."""
    source, ptx = compile_ptx(spec(tile, ending), "sm_90a")
    assert f"__launch_bounds__({tile.threads + 128}, {tile.resident})" in source
    assert "wgmma.mma_async" in ptx
    assert spilled(ptx, tmp_path) == {"0"}


def test_registers_of_all_resident_blocks_fit_a_multiprocessor():
    """65,536 there are; those that copy have 24, in each block 128 threads."""
    load()
    from tfq_bench_cuda.kernels.programs.resident import registers

    assert registers(ALONE) == (24, 240)
    for tile in WAYS.values():
        copies, multiplies = registers(tile)
        assert tile.resident * (128 * copies + tile.threads * multiplies) <= 65_536
        assert multiplies % 8 == 0


def test_a_search_leaves_room_for_as_many_blocks():
    """Of the 227 KiB of a multiprocessor each has its share, whatever depth and stages it tries."""
    tried = other_pipelines(WAYS["two resident"], 1280, "sm_90a", accumulators=2)
    assert tried
    for tile in tried:
        assert tile.resident == 2
        assert 2 * (tile.m + 2 * tile.n) * tile.k * tile.stages <= 227 * 1024


def test_a_convolution_shares_a_multiprocessor_too():
    """Only copy engine and registers know of it."""
    tile = Tile(m=128, n=160, k=64, stages=5, threads=128, whole_rows=True, resident=2)
    source = generate(conv(tile), "sm_90a")
    assert "__launch_bounds__(256, 2)" in source
    assert "warpgroup_reg_alloc<232>" in source


def test_a_convolution_runs_ahead(tmp_path):
    """Its pixels come by the copy engine's im2col mode."""
    tile = Tile(m=128, n=160, k=64, stages=5, threads=256, whole_rows=True, ahead=True)
    source, ptx = compile_ptx(conv(tile), "sm_90a")
    assert "tma_load_im2col(X_desc" in source
    assert source.count("tma_load(F_desc") == 1
    assert "tl::wait_wgmma<1>()" in source
    assert spilled(ptx, tmp_path) == {"0"}


def test_a_stage_is_released_when_the_next_products_run():
    """One step of products stays in flight; the copying threads wait for nothing else."""
    source = generate(spec(WAYS["ahead"], GEGLU), "sm_90a")
    copying, multiplying = source.split("warpgroup_reg_dealloc<24>")[1].split(
        "warpgroup_reg_alloc<240>"
    )
    assert "sync" not in copying
    loop, after = multiplying.split("wait_wgmma<0>")
    products, released = loop.split("wait_wgmma<1>")
    assert "wgmma_ss" in products
    assert ".arrive(" not in products
    # The stage before this one, by one thread of each warp, from the second step on.
    assert "if ((0 < k_1) && ((((int)threadIdx.x) % 32) == 0))" in released
    assert "free[((k_1 + 3) & 3)].arrive(" in released
    assert after.index("warpgroup_fence_operand") < after.index("(float)total")


def test_one_block_alone_has_all_registers():
    """A tile without another way is compiled as ever."""
    source = generate(spec(ALONE, GEGLU), "sm_90a")
    assert "__launch_bounds__(384, 1)" in source


@pytest.mark.gpu
@pytest.mark.parametrize("ending", [GEGLU, RESIDUAL], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_bits_of_the_reference(way, ending):
    """Fewer rows than a tile, an odd number of tiles, and as many as there are multiprocessors."""
    kernels = Kernels(check_machine("cuda"), "cuda")
    one = spec(WAYS[way], ending)
    kernels.prepare([one])  # the self-test, which allows a GEGLU its roundings
    like = {"device": "cuda", "generator": torch.Generator("cuda").manual_seed(0)}
    weight = torch.randint(-128, 128, (one.weights, one.k), dtype=torch.int8, **like)
    side = Factors(
        weight=weight,
        sums=weight.sum(1, dtype=torch.int32),
        step=torch.zeros(1, dtype=torch.int64, device="cuda"),
        scale=torch.full((1,), 0.01, device="cuda"),
        zero_point=torch.full((1,), 77, dtype=torch.int32, device="cuda"),
        weight_scale=torch.full((one.weights,), 1e-4, device="cuda"),
        bias=torch.zeros(one.weights, device="cuda"),
    )
    for rows in (1, 300, 2048):
        code = torch.randint(-128, 128, (rows, one.k), dtype=torch.int8, **like)
        additions = Additions(
            residual=torch.randn(rows, one.n, dtype=torch.bfloat16, **like),
            inverse=torch.full((1,), 30.0, device="cuda"),
            zero_point=torch.full((1,), 128, dtype=torch.int32, device="cuda"),
        )
        found = kernels.linear(one, code, side, additions)
        expected = ReferenceKernels().linear(one, code, side, additions)
        apart = (found.float() - expected.float()).abs()
        assert float(apart.max()) <= (1 if ending is GEGLU else 0)
        assert float((apart > 0).float().mean()) < 1e-3


@pytest.mark.gpu
@pytest.mark.parametrize("way", WAYS)
def test_convolutions_of_every_way_are_exact(way):
    """By the self-test: two small images."""
    tile = replace(WAYS[way], k=64)
    Kernels(check_machine("cuda"), "cuda").prepare([conv(tile)])
