"""What sums start at: less the zero point times the weights that it met, see `borders`.

Taken off at the start and not at the end, it is read while the first operands are on their way.
"""

from typing import Any

import tilelang.language as T

from tfq_bench_cuda.kernels.programs.codes import at_step
from tfq_bench_cuda.kernels.specs import ConvSpec, LinearSpec

__all__ = ["start"]


def start(spec: LinearSpec | ConvSpec) -> Any:
    """The macro that sets the sums of a thread block before anything is added.

    Its arguments are `Factors` of the program's arguments, the column `bx` of the block, the sums
    `total` as for `ending.end`, and of a convolution the rows' `border` classes `[tile.m]`.
    """
    N, BM, BN = spec.n, spec.tile.m, spec.tile.n
    paired = spec.ending.activation == "geglu"

    @T.macro
    def taken_off(factors: Any, bx: Any, total: Any, border: Any) -> None:
        z = 128 - at_step(factors.zero_point, factors.step)
        for i, j in T.Parallel(BM, BN):
            n = bx * BN + j
            total[i, j] = z * (factors.sums[n] if border is None else factors.sums[border[i], n])
        if paired:
            # A loop of its own: TileLang takes one index of a fragment per loop.
            for i, j in T.Parallel(BM, BN):
                total[i, BN + j] = z * factors.sums[N + bx * BN + j]

    return taken_off
