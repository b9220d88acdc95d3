"""How a product ends: from sums in registers to what is written, see `specs.Ending`."""

from typing import Any

import tilelang.language as T

from tfq_bench_cuda.kernels.programs.activations import ACTIVATIONS, gelu
from tfq_bench_cuda.kernels.programs.codes import at_step, code
from tfq_bench_cuda.kernels.specs import ConvSpec, Ending, LinearSpec

__all__ = ["asked", "end", "held", "hold"]

_HELD = 96
"""Sums a thread beside which its part of a residual fits into the registers."""


def asked(wanted: object, shape: tuple[Any, ...], dtype: str) -> Any:
    """An argument of a program, or None for no argument where its ending does not ask for it."""
    return T.Tensor(shape, dtype) if wanted else None


def held(spec: LinearSpec | ConvSpec) -> bool:
    """Whether a residual is read before the products, while the first operands are on their way.

    In the ending each thread would wait for it; in shared memory it would halt the pipeline.
    """
    tile = spec.tile
    return bool(spec.ending.residual) and tile.m * tile.n <= _HELD * tile.threads


def hold(spec: LinearSpec | ConvSpec) -> Any:
    """The macro that reads a block's part of a residual into registers; see `held`."""
    BM, BN = spec.tile.m, spec.tile.n

    @T.macro
    def read(residual: Any, bx: Any, by: Any, early: Any) -> None:
        for i, j in T.Parallel(BM, BN):
            early[i, j] = residual[by * BM + i, bx * BN + j]

    return read


def end(spec: LinearSpec | ConvSpec) -> Any:
    """The macro that ends `spec`, called at the end of its thread block.

    Its arguments are `Factors` and `Additions` of the program's arguments, the result `Y`, the
    place `bx, by` of the block, and the sums `total` `[tile.m, tile.n]` in registers, of a GEGLU
    `[tile.m, 2 * tile.n]`, gates last, and the residual that `hold` read, or None.
    """
    ending, N, BM, BN = spec.ending, spec.n, spec.tile.m, spec.tile.n
    paired = ending.activation == "geglu"
    activation = ACTIVATIONS.get(ending.activation)
    activated = activation is not None
    shifted, gated, added = ending.shift, ending.gate, bool(ending.residual)
    assert not (paired and (ending.partial or ending.shift)), "a GEGLU has no sum before it"

    @T.macro
    def write(
        factors: Any, additions: Any, Y: Any, bx: Any, by: Any, total: Any, early: Any
    ) -> None:
        s = at_step(factors.scale, factors.step)
        if shifted:
            shifted_rows = T.truncdiv(Y.shape[0], additions.shift.shape[0])
        if gated:
            gated_rows = T.truncdiv(Y.shape[0], additions.gate.shape[0])
        if ending.out == "int8":
            next_s = at_step(additions.inverse, factors.step)
            next_z = T.cast(at_step(additions.zero_point, factors.step), "float32")
        if paired:
            # A loop of its own: TileLang takes one index of a fragment per loop.
            gates = T.alloc_fragment((BM, BN), "float32")
            for i, j in T.Parallel(BM, BN):
                n = N + bx * BN + j
                y = _scaled(total[i, BN + j], s, factors, n)
                gates[i, j] = gelu(y)
        done = T.alloc_fragment((BM, BN), ending.out)
        for i, j in T.Parallel(BM, BN):
            m = by * BM + i
            n = bx * BN + j
            y = _scaled(total[i, j], s, factors, n)
            if ending.partial:
                y = y + additions.partial[m, n]
            if shifted:
                y = y + additions.shift[T.truncdiv(m, shifted_rows), n]
            if paired:
                y = y * gates[i, j]
            if activated:
                y = activation(y)
            if gated:
                y = y * additions.gate[T.truncdiv(m, gated_rows), n]
            if added and early is not None:
                y = y + T.cast(early[i, j], "float32")
            elif added:
                y = y + T.cast(additions.residual[m, n], "float32")
            if ending.out == "int8":
                done[i, j] = code(y, next_s, next_z, ending.bits)
            else:
                done[i, j] = T.cast(y, ending.out)
        if _staged(ending, N):
            shared = T.alloc_shared((BM, BN), ending.out)
            if paired:
                # `T.copy` would store as many registers as the sums have, twice those of `done`.
                for i, j in T.Parallel(BM, BN):
                    shared[i, j] = done[i, j]
            else:
                T.copy(done, shared)
            T.copy(shared, Y[by * BM, bx * BN])
        else:
            T.copy(done, Y[by * BM, bx * BN])

    return write


def _staged(ending: Ending, outputs: int) -> bool:
    """Whether results of one or two bytes are collected in shared memory and written in long runs.

    Straight from the registers a thread would write four bytes here and four there, which took as
    long as all products. Four-byte results fill the memory's sectors as they are. The copy engine
    wants rows of a multiple of 16 bytes.
    """
    return ending.out != "float32" and outputs % (16 if ending.out == "int8" else 8) == 0


def _scaled(whole: Any, s: Any, factors: Any, n: Any) -> Any:
    return T.cast(whole, "float32") * s * factors.weight_scale[n] + factors.bias[n]
