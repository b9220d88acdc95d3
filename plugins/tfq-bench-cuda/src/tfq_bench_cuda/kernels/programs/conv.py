"""The convolution: a matrix product whose rows are the pixels under a filter."""

from typing import Any

import tilelang.language as T

from tfq_bench_cuda.kernels.operands import Additions, Factors
from tfq_bench_cuda.kernels.programs.ahead import ahead, launch
from tfq_bench_cuda.kernels.programs.ending import asked, end, held, hold
from tfq_bench_cuda.kernels.programs.resident import resident
from tfq_bench_cuda.kernels.programs.start import start
from tfq_bench_cuda.kernels.programs.warps import warps
from tfq_bench_cuda.kernels.specs import ConvSpec

__all__ = ["conv2d"]

_OUTSIDE = -(2**28)
"""A row far above every image."""


def conv2d(spec: ConvSpec) -> Any:
    """`[B * out_h * out_w, n]` of codes `[B, H, W, c]`, see `ReferenceKernels.conv2d`."""
    N, C, tile, ending = spec.n, spec.c, spec.tile, spec.ending
    BM, BN, BK = tile.m, tile.n, tile.k
    (KH, KW), geometry = spec.geometry.kernel, spec.geometry
    DH, DW = geometry.dilation
    K = spec.terms
    B, H, W, P = T.dynamic("b"), T.dynamic("h"), T.dynamic("w"), T.dynamic("p")
    M, classes, steps = T.dynamic("m"), T.dynamic("classes"), T.dynamic("steps")
    next_steps, shifts, gatings = T.dynamic("next_steps"), T.dynamic("shifts"), T.dynamic("gatings")
    coded = ending.out == "int8"
    policy = warps(tile)
    taken_off, read, write = start(spec), hold(spec), end(spec)
    share, run = resident(tile), ahead(spec)

    @T.prim_func
    def s8_conv2d(
        X: T.Tensor((B, H, W, C), "int8"),
        F: T.Tensor((N, K), "int8"),
        sums: T.Tensor((classes, N), "int32"),
        positions: T.Tensor((P, 4), "int32"),
        step: T.Tensor((1,), "int64"),
        scale: T.Tensor((steps,), "float32"),
        zero_point: T.Tensor((steps,), "int32"),
        weight_scale: T.Tensor((N,), "float32"),
        bias: T.Tensor((N,), "float32"),
        partial: asked(ending.partial, (M, N), "float32"),
        shift: asked(ending.shift, (shifts, N), "float32"),
        gate: asked(ending.gate, (gatings, N), "float32"),
        residual: asked(ending.residual, (M, N), ending.residual),
        next_inverse: asked(coded, (next_steps,), "float32"),
        next_zero_point: asked(coded, (next_steps,), "int32"),
        Y: T.Tensor((M, N), ending.out),
    ) -> None:
        factors = Factors(
            weight=F,
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
        if tile.ahead and not spec.gather:
            with launch(tile, M, N) as (by, bx):
                border = T.alloc_shared((BM,), "int32")
                for i in T.Parallel(BM):
                    border[i] = positions[(by * BM + i) % P, 2]
                run(X, F, factors, additions, Y, bx, by, border)
        else:
            with T.Kernel(T.ceildiv(N, BN), T.ceildiv(M, BM), threads=tile.threads) as (bx, by):
                if tile.resident > 1:
                    share()
                Xs = T.alloc_shared((BM, BK), "int8")
                Fs = T.alloc_shared((BN, BK), "int8")
                total = T.alloc_fragment((BM, BN), "int32")
                border = T.alloc_shared((BM,), "int32")
                for i in T.Parallel(BM):
                    border[i] = positions[(by * BM + i) % P, 2]
                if held(spec):
                    early = T.alloc_fragment((BM, BN), ending.residual)
                    read(residual, bx, by, early)
                taken_off(factors, bx, total, border)
                if spec.gather:
                    pixels = T.reshape(X, (B * H * W, C))
                    top = T.alloc_shared((BM,), "int32")
                    left = T.alloc_shared((BM,), "int32")
                    first = T.alloc_shared((BM,), "int32")
                    for i in T.Parallel(BM):
                        m = by * BM + i
                        p = m % P
                        # Rows beyond the last one see nothing of any image.
                        top[i] = T.if_then_else(m < M, positions[p, 0], _OUTSIDE)
                        left[i] = positions[p, 1]
                        first[i] = ((m // P) * H + positions[p, 0]) * W + positions[p, 1]
                    for k in T.Pipelined(K // BK, num_stages=tile.stages):
                        dh = k * BK // C // KW * DH
                        dw = k * BK // C % KW * DW
                        for i, j in T.Parallel(BM, BK):
                            Xs[i, j] = T.if_then_else(
                                top[i] + dh >= 0
                                and top[i] + dh < H
                                and left[i] + dw >= 0
                                and left[i] + dw < W,
                                pixels[first[i] + dh * W + dw, k * BK % C + j],
                                T.int8(0),
                            )
                        T.copy(F[bx * BN, k * BK], Fs)
                        T.gemm(Xs, Fs, total, transpose_B=True, policy=policy)
                else:
                    for k in T.Pipelined(K // BK, num_stages=tile.stages):
                        T.im2col(X, Xs, by, k, KH, geometry.stride[0], DH, geometry.padding[0])
                        T.copy(F[bx * BN, k * BK], Fs)
                        T.gemm(Xs, Fs, total, transpose_B=True, policy=policy)
                if held(spec):
                    write(factors, additions, Y, bx, by, total, early)
                else:
                    write(factors, additions, Y, bx, by, total, None)

    return s8_conv2d
