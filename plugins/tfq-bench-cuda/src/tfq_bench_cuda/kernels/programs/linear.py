"""The matrix product."""

from typing import Any

import tilelang.language as T

from tfq_bench_cuda.kernels.operands import Additions, Factors
from tfq_bench_cuda.kernels.programs.ahead import ahead, launch
from tfq_bench_cuda.kernels.programs.ending import asked, end, held, hold
from tfq_bench_cuda.kernels.programs.resident import resident
from tfq_bench_cuda.kernels.programs.start import start
from tfq_bench_cuda.kernels.programs.warps import warps
from tfq_bench_cuda.kernels.specs import LinearSpec

__all__ = ["linear"]


def linear(spec: LinearSpec) -> Any:
    """`[M, n]` of codes `[M, k]`, see `ReferenceKernels.linear`.

    A GEGLU multiplies a block of rows with two of the weight, values and gates, as if they were one
    of twice the width. Each group of four warps takes whole rows, so that both sums of an output
    are in the registers of one thread.
    """
    N, K, rows, tile, ending = spec.n, spec.k, spec.weights, spec.tile, spec.ending
    BM, BN, BK = tile.m, tile.n, tile.k
    M, steps, next_steps = T.dynamic("m"), T.dynamic("steps"), T.dynamic("next_steps")
    shifts, gatings = T.dynamic("shifts"), T.dynamic("gatings")
    coded, paired = ending.out == "int8", ending.activation == "geglu"
    sums_per_row = 2 * BN if paired else BN
    policy = warps(tile, whole_rows=paired)
    taken_off, read, write = start(spec), hold(spec), end(spec)
    share, run = resident(tile), ahead(spec)

    @T.prim_func
    def s8_linear(
        X: T.Tensor((M, K), "int8"),
        W: T.Tensor((rows, K), "int8"),
        sums: T.Tensor((rows,), "int32"),
        step: T.Tensor((1,), "int64"),
        scale: T.Tensor((steps,), "float32"),
        zero_point: T.Tensor((steps,), "int32"),
        weight_scale: T.Tensor((rows,), "float32"),
        bias: T.Tensor((rows,), "float32"),
        partial: asked(ending.partial, (M, N), "float32"),
        shift: asked(ending.shift, (shifts, N), "float32"),
        gate: asked(ending.gate, (gatings, N), "float32"),
        residual: asked(ending.residual, (M, N), ending.residual),
        next_inverse: asked(coded, (next_steps,), "float32"),
        next_zero_point: asked(coded, (next_steps,), "int32"),
        Y: T.Tensor((M, N), ending.out),
    ) -> None:
        factors = Factors(
            weight=W,
            sums=sums,
            step=step,
            scale=scale,
            zero_point=zero_point,
            weight_scale=weight_scale,
            bias=bias,
        )
        additions = Additions(
            partial=partial,
            shift=shift,
            gate=gate,
            residual=residual,
            inverse=next_inverse,
            zero_point=next_zero_point,
        )
        if tile.ahead:
            with launch(tile, M, N) as (by, bx):
                run(X, W, factors, additions, Y, bx, by, None)
        else:
            with T.Kernel(T.ceildiv(N, BN), T.ceildiv(M, BM), threads=tile.threads) as (bx, by):
                if tile.resident > 1:
                    share()
                Xs = T.alloc_shared((BM, BK), "int8")
                Ws = T.alloc_shared((sums_per_row, BK), "int8")
                total = T.alloc_fragment((BM, sums_per_row), "int32")
                T.use_swizzle(8)
                if held(spec):
                    early = T.alloc_fragment((BM, BN), ending.residual)
                    read(residual, bx, by, early)
                taken_off(factors, bx, total, None)
                for k in T.Pipelined(K // BK, num_stages=tile.stages):
                    T.copy(X[by * BM, k * BK], Xs)
                    if paired:
                        T.copy(W[bx * BN, k * BK], Ws[0:BN, 0:BK])
                        T.copy(W[N + bx * BN, k * BK], Ws[BN : 2 * BN, 0:BK])
                    else:
                        T.copy(W[bx * BN, k * BK], Ws)
                    T.gemm(Xs, Ws, total, transpose_B=True, policy=policy)
                if held(spec):
                    write(factors, additions, Y, bx, by, total, early)
                else:
                    write(factors, additions, Y, bx, by, total, None)

    return s8_linear
