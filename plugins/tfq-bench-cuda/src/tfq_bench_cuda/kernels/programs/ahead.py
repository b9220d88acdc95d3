"""A product whose thread blocks copy and multiply as told here; see `Tile.ahead`.

One group of four warps copies, the others multiply. Each stage of shared memory has two barriers:
`full` when its operands are there, `free` when nobody reads it any more. A group releases a stage
when the products of the next one are on their way, so the tensor cores never wait for a barrier.
"""

from typing import Any

import tilelang.language as T

from tfq_bench_cuda.kernels.programs.ending import end, held, hold
from tfq_bench_cuda.kernels.programs.resident import resident
from tfq_bench_cuda.kernels.programs.start import start
from tfq_bench_cuda.kernels.programs.warps import warps
from tfq_bench_cuda.kernels.specs import ConvSpec, LinearSpec, Tile

__all__ = ["ahead", "launch"]

_COPYING = 128
"""Threads that copy; the first ones of a block."""


def launch(tile: Tile, rows: Any, outputs: int) -> Any:
    """The grid: blocks of one column follow one another."""
    blocks = T.ceildiv(rows, tile.m), T.ceildiv(outputs, tile.n)
    return T.Kernel(*blocks, threads=tile.threads + _COPYING)


def ahead(spec: LinearSpec | ConvSpec) -> Any:
    """The macro of a thread block at `bx, by`, from codes to the written result.

    Its arguments are those of the program; `border` as for `start`, None for a matrix product.
    """
    N, K, tile, ending = spec.n, spec.terms, spec.tile, spec.ending
    BM, BN, BK, stages = tile.m, tile.n, tile.k, tile.stages
    paired = ending.activation == "geglu"
    sums_per_row = 2 * BN if paired else BN
    policy = warps(tile, whole_rows=paired)
    taken_off, read, write = start(spec), hold(spec), end(spec)
    load, share = _rows(spec), resident(tile)
    steps = K // BK

    @T.macro
    def run(
        X: Any, W: Any, factors: Any, additions: Any, Y: Any, bx: Any, by: Any, border: Any
    ) -> None:
        Xs = T.alloc_shared((stages, BM, BK), "int8")
        Ws = T.alloc_shared((stages, sums_per_row, BK), "int8")
        total = T.alloc_fragment((BM, sums_per_row), "int32")
        full = T.alloc_barrier([_COPYING] * stages)
        free = T.alloc_barrier([tile.threads // 32] * stages)
        share()
        with T.attr(0, "kWarpSpecializationScope", 0):
            if T.get_thread_binding() < _COPYING:
                for k in T.serial(steps):
                    stage = k % stages
                    T.mbarrier_wait_parity(free[stage], (k // stages) % 2 ^ 1)
                    load(X, Xs, full, by, k, stage)
                    T.tma_copy(
                        W[bx * BN : (bx + 1) * BN, k * BK : (k + 1) * BK],
                        Ws[stage, 0:BN, 0:BK],
                        barrier=full[stage],
                    )
                    if paired:
                        T.tma_copy(
                            W[N + bx * BN : N + (bx + 1) * BN, k * BK : (k + 1) * BK],
                            Ws[stage, BN : 2 * BN, 0:BK],
                            barrier=full[stage],
                        )
                    T.mbarrier_arrive(full[stage])
            else:
                if held(spec):
                    early = T.alloc_fragment((BM, BN), ending.residual)
                    read(additions.residual, bx, by, early)
                taken_off(factors, bx, total, border)
                for k in T.serial(steps):
                    T.mbarrier_wait_parity(full[k % stages], (k // stages) % 2)
                    T.wgmma_gemm(
                        Xs[k % stages, 0:BM, 0:BK],
                        Ws[k % stages, 0:sums_per_row, 0:BK],
                        total,
                        transpose_B=True,
                        policy=policy,
                    )
                    T.wait_wgmma(1)
                    if k > 0 and T.get_thread_binding() % 32 == 0:
                        T.mbarrier_arrive(free[(k - 1) % stages])
                T.wait_wgmma(0)
                # The compiler must read no sum before, which it does not know to be on its way.
                T.warpgroup_fence_operand(total, num_regs=BM * sums_per_row // tile.threads)
                if held(spec):
                    write(factors, additions, Y, bx, by, total, early)
                else:
                    write(factors, additions, Y, bx, by, total, None)

    return run


def _rows(spec: LinearSpec | ConvSpec) -> Any:
    """The macro that has codes of a step copied to a stage, a convolution's pixels by a tap."""
    BM, BK = spec.tile.m, spec.tile.k

    @T.macro
    def codes(X: Any, Xs: Any, full: Any, by: Any, k: Any, stage: Any) -> None:
        T.tma_copy(
            X[by * BM : (by + 1) * BM, k * BK : (k + 1) * BK],
            Xs[stage, 0:BM, 0:BK],
            barrier=full[stage],
        )

    if isinstance(spec, LinearSpec):
        return codes
    geometry = spec.geometry
    shape = (geometry.kernel[0], geometry.stride[0], geometry.dilation[0], geometry.padding[0])

    @T.macro
    def pixels(X: Any, Xs: Any, full: Any, by: Any, k: Any, stage: Any) -> None:
        to = Xs[stage, 0:BM, 0:BK]
        T.im2col(X, to, by, k, *shape, annotations={"barrier": full[stage]})

    return pixels
