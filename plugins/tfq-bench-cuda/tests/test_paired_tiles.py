"""Tiles of a GEGLU, whose threads hold two sums an output."""

from __future__ import annotations

import pytest

from tfq_bench_cuda.kernels.tiles import ARCHITECTURES, candidates

SHAPES = [(2048, 5120, 1280), (8192, 2560, 640), (1, 96, 32)]
SHARED = {"sm_80": 164, "sm_86": 100, "sm_89": 100, "sm_90a": 228}
"""KiB of a multiprocessor, by the CUDA programming guide."""


@pytest.mark.parametrize("arch", ARCHITECTURES.values())
@pytest.mark.parametrize("shape", SHAPES)
def test_two_sums_an_output_fit_registers_and_shared_memory(arch, shape):
    """Of 255 registers a thread, 95 are left beside the sums; two stages at least are in flight."""
    for tile in candidates(*shape, arch, accumulators=2):
        assert 2 * tile.m * tile.n <= 160 * tile.threads
        assert (tile.m + 2 * tile.n) * tile.k * tile.stages < SHARED[arch] * 1024
        assert tile.stages >= 2


@pytest.mark.parametrize("arch", ARCHITECTURES.values())
def test_each_warp_has_whole_rows(arch):
    """Values and gates of an output meet in one thread, for any width that `wgmma` has."""
    rows_of_a_warp = 16
    for tile in candidates(2048, 5120, 1280, arch, accumulators=2):
        assert tile.m >= tile.threads // 32 * rows_of_a_warp
        assert tile.n % 16 == 0


def test_one_sum_is_what_a_product_has():
    """Tiles of other products are what they were."""
    shape = (2048, 1280, 1280, "sm_90a")
    assert candidates(*shape) == candidates(*shape, accumulators=1)
    assert candidates(*shape) != candidates(*shape, accumulators=2)
