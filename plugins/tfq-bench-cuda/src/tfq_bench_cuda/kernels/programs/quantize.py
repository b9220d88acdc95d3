"""Quantization: float rows or planes to int8 codes with channels last, see `QuantizeSpec`."""

from typing import Any

import tilelang.language as T

from tfq_bench_cuda.kernels.programs.codes import code
from tfq_bench_cuda.kernels.specs import QuantizeSpec

__all__ = ["quantize"]


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
            codes = T.alloc_fragment((BM, BC), "int8")
            t = T.min(T.cast(step[0], "int32"), steps - 1)
            s = inverse[t]
            z = T.cast(zero_point[t], "float32")
            T.copy(X[by * BM, spec.start + bx * BC], value)
            for i, j in T.Parallel(BM, BC):
                if CP == C:
                    codes[i, j] = code(value[i, j], s, z, spec.bits)
                else:
                    codes[i, j] = T.if_then_else(
                        bx * BC + j < C, code(value[i, j], s, z, spec.bits), T.int8(0)
                    )
            T.copy(codes, Q[by * BM, bx * BC])

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
                    code(X[b, spec.start + T.min(c, C - 1), T.min(pixel, L - 1)], s, z, spec.bits),
                    T.int8(0),
                )
            for j, i in T.Parallel(BL, BC):
                if bl * BL + j < L:
                    Q[b, bl * BL + j, bc * BC + i] = turned[i, j]

    return s8_quantize_planes
