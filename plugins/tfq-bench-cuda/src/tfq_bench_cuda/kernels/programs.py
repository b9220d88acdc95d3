"""The kernels in TileLang. Imported only where they are compiled: TileLang takes seconds to load.

Names of sizes: `m` rows, `n` outputs, `k` or `c` inputs. Sizes made by `T.dynamic` are arguments.
What is computed is said in `tfq_bench_cuda.kernels.reference`.
"""

# No `from __future__ import annotations`: TileLang reads the annotations of its programs.

from typing import Any

import tilelang.language as T

from tfq_bench_cuda.kernels.specs import ConvSpec, LinearSpec, QuantizeSpec

__all__ = ["conv2d", "linear", "quantize"]

_OUTSIDE = -(2**28)
"""A row far above every image."""


def linear(spec: LinearSpec) -> Any:
    """`[M, n]` of codes `[M, k]`, see `ReferenceKernels.linear`."""
    N, K, tile, out = spec.n, spec.k, spec.tile, spec.ending.out
    BM, BN, BK = tile.m, tile.n, tile.k
    M, steps = T.dynamic("m"), T.dynamic("steps")
    partial_rows = M if spec.ending.partial else 1
    staged = _staged(spec)

    @T.prim_func
    def s8_linear(
        X: T.Tensor((M, K), "int8"),
        W: T.Tensor((N, K), "int8"),
        sums: T.Tensor((N,), "int32"),
        step: T.Tensor((1,), "int64"),
        scale: T.Tensor((steps,), "float32"),
        zero_point: T.Tensor((steps,), "int32"),
        weight_scale: T.Tensor((N,), "float32"),
        bias: T.Tensor((N,), "float32"),
        partial: T.Tensor((partial_rows, N), "float32"),
        Y: T.Tensor((M, N), out),
    ) -> None:
        with T.Kernel(T.ceildiv(N, BN), T.ceildiv(M, BM), threads=tile.threads) as (bx, by):
            Xs = T.alloc_shared((BM, BK), "int8")
            Ws = T.alloc_shared((BN, BK), "int8")
            total = T.alloc_fragment((BM, BN), "int32")
            T.use_swizzle(8)
            T.clear(total)
            for k in T.Pipelined(K // BK, num_stages=tile.stages):
                T.copy(X[by * BM, k * BK], Xs)
                T.copy(W[bx * BN, k * BK], Ws)
                T.gemm(Xs, Ws, total, transpose_B=True)
            t = T.min(T.cast(step[0], "int32"), steps - 1)
            s = scale[t]
            z = zero_point[t] - 128
            if staged:
                done = T.alloc_fragment((BM, BN), out)
                shared = T.alloc_shared((BM, BN), out)
                for i, j in T.Parallel(BM, BN):
                    m = by * BM + i
                    n = bx * BN + j
                    y = T.cast(total[i, j] - z * sums[n], "float32") * s * weight_scale[n] + bias[n]
                    done[i, j] = T.cast(y + partial[m, n] if spec.ending.partial else y, out)
                T.copy(done, shared)
                T.copy(shared, Y[by * BM, bx * BN])
            else:
                for i, j in T.Parallel(BM, BN):
                    m = by * BM + i
                    n = bx * BN + j
                    if m < M and n < N:
                        whole = total[i, j] - z * sums[n]
                        y = T.cast(whole, "float32") * s * weight_scale[n] + bias[n]
                        Y[m, n] = T.cast(y + partial[m, n] if spec.ending.partial else y, out)

    return s8_linear


def conv2d(spec: ConvSpec) -> Any:
    """`[B * out_h * out_w, n]` of codes `[B, H, W, c]`, see `ReferenceKernels.conv2d`."""
    N, C, tile, out = spec.n, spec.c, spec.tile, spec.ending.out
    BM, BN, BK = tile.m, tile.n, tile.k
    (KH, KW), geometry = spec.geometry.kernel, spec.geometry
    DH, DW = geometry.dilation
    K = spec.terms
    B, H, W, P = T.dynamic("b"), T.dynamic("h"), T.dynamic("w"), T.dynamic("p")
    M, classes, steps = T.dynamic("m"), T.dynamic("classes"), T.dynamic("steps")
    partial_rows = M if spec.ending.partial else 1
    staged = _staged(spec)

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
        partial: T.Tensor((partial_rows, N), "float32"),
        Y: T.Tensor((M, N), out),
    ) -> None:
        with T.Kernel(T.ceildiv(N, BN), T.ceildiv(M, BM), threads=tile.threads) as (bx, by):
            Xs = T.alloc_shared((BM, BK), "int8")
            Fs = T.alloc_shared((BN, BK), "int8")
            total = T.alloc_fragment((BM, BN), "int32")
            border = T.alloc_shared((BM,), "int32")
            T.clear(total)
            for i in T.Parallel(BM):
                border[i] = positions[(by * BM + i) % P, 2]
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
                    T.gemm(Xs, Fs, total, transpose_B=True)
            else:
                for k in T.Pipelined(K // BK, num_stages=tile.stages):
                    T.im2col(X, Xs, by, k, KH, geometry.stride[0], DH, geometry.padding[0])
                    T.copy(F[bx * BN, k * BK], Fs)
                    T.gemm(Xs, Fs, total, transpose_B=True)
            t = T.min(T.cast(step[0], "int32"), steps - 1)
            s = scale[t]
            z = zero_point[t] - 128
            if staged:
                done = T.alloc_fragment((BM, BN), out)
                shared = T.alloc_shared((BM, BN), out)
                for i, j in T.Parallel(BM, BN):
                    m = by * BM + i
                    n = bx * BN + j
                    whole = total[i, j] - z * sums[border[i], n]
                    y = T.cast(whole, "float32") * s * weight_scale[n] + bias[n]
                    done[i, j] = T.cast(y + partial[m, n] if spec.ending.partial else y, out)
                T.copy(done, shared)
                T.copy(shared, Y[by * BM, bx * BN])
            else:
                for i, j in T.Parallel(BM, BN):
                    m = by * BM + i
                    n = bx * BN + j
                    if m < M and n < N:
                        whole = total[i, j] - z * sums[border[i], n]
                        y = T.cast(whole, "float32") * s * weight_scale[n] + bias[n]
                        Y[m, n] = T.cast(y + partial[m, n] if spec.ending.partial else y, out)

    return s8_conv2d


def _staged(spec: LinearSpec | ConvSpec) -> bool:
    """Whether results of two bytes are collected in shared memory and written in long runs.

    Straight from the registers a thread would write four bytes here and four there, which took as
    long as all products. Four-byte results fill the memory's sectors as they are. The copy engine
    wants rows of a multiple of 16 bytes.
    """
    return spec.ending.out != "float32" and spec.n % 8 == 0


def quantize(spec: QuantizeSpec) -> Any:
    """int8 codes with channels last, see `ReferenceKernels.quantize`."""
    return _planes(spec) if spec.planes else _rows(spec)


_BLOCK = 4096
"""Codes per thread block."""


def _rows(spec: QuantizeSpec) -> Any:
    C, CP = spec.channels, spec.padded
    BC = next(width for width in (128, 64, 32) if CP % width == 0)
    BM = _BLOCK // BC
    M, steps = T.dynamic("m"), T.dynamic("steps")

    @T.prim_func
    def s8_quantize_rows(
        X: T.Tensor((M, spec.total), spec.dtype),
        step: T.Tensor((1,), "int64"),
        inverse: T.Tensor((steps,), "float32"),
        zero_point: T.Tensor((steps,), "int32"),
        Q: T.Tensor((M, CP), "int8"),
    ) -> None:
        with T.Kernel(CP // BC, T.ceildiv(M, BM), threads=256) as (bx, by):
            # Through registers, so that a thread reads and writes several neighbours at once.
            value = T.alloc_fragment((BM, BC), spec.dtype)
            code = T.alloc_fragment((BM, BC), "int8")
            t = T.min(T.cast(step[0], "int32"), steps - 1)
            s = inverse[t]
            z = T.cast(zero_point[t], "float32")
            T.copy(X[by * BM, spec.start + bx * BC], value)
            for i, j in T.Parallel(BM, BC):
                if CP == C:
                    code[i, j] = _code(value[i, j], s, z, spec.bits)
                else:
                    code[i, j] = T.if_then_else(
                        bx * BC + j < C, _code(value[i, j], s, z, spec.bits), T.int8(0)
                    )
            T.copy(code, Q[by * BM, bx * BC])

    return s8_quantize_rows


def _planes(spec: QuantizeSpec) -> Any:
    C, CP = spec.channels, spec.padded
    BC = 64 if CP % 64 == 0 else 32
    BL = _BLOCK // BC
    B, L, steps = T.dynamic("b"), T.dynamic("l"), T.dynamic("steps")

    @T.prim_func
    def s8_quantize_planes(
        X: T.Tensor((B, spec.total, L), spec.dtype),
        step: T.Tensor((1,), "int64"),
        inverse: T.Tensor((steps,), "float32"),
        zero_point: T.Tensor((steps,), "int32"),
        Q: T.Tensor((B, L, CP), "int8"),
    ) -> None:
        with T.Kernel(T.ceildiv(L, BL), CP // BC, B, threads=256) as (bl, bc, b):
            # Turned over in shared memory, so that both sides are read and written in long runs.
            # Four bytes more than a row, so that a column lies in different banks.
            turned = T.alloc_shared((BC, BL + 4), "int8")
            t = T.min(T.cast(step[0], "int32"), steps - 1)
            s = inverse[t]
            z = T.cast(zero_point[t], "float32")
            for i, j in T.Parallel(BC, BL):
                c = bc * BC + i
                pixel = bl * BL + j
                turned[i, j] = T.if_then_else(
                    c < C and pixel < L,
                    _code(X[b, spec.start + T.min(c, C - 1), T.min(pixel, L - 1)], s, z, spec.bits),
                    T.int8(0),
                )
            for j, i in T.Parallel(BL, BC):
                if bl * BL + j < L:
                    Q[b, bl * BL + j, bc * BC + i] = turned[i, j]

    return s8_quantize_planes


def _code(x: Any, inverse: Any, zero_point: Any, bits: int) -> Any:
    """The expression of a code; `nearbyint` goes half to even, as torch rounds."""
    moved = T.nearbyint(T.cast(x, "float32") * inverse) + zero_point
    inside = T.max(T.min(moved, T.float32(2**bits - 1)), T.float32(0))
    return T.cast(T.cast(inside, "int32") - 128, "int8")
