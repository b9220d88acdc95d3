"""The kernels in TileLang. Imported only where they are compiled: TileLang takes seconds to load.

Names of sizes: `m` rows, `n` outputs, `k` or `c` inputs. Sizes made by `T.dynamic` are arguments.
What is computed is said in `tfq_bench_cuda.kernels.reference`.

Here: a product per module, how it ends, and the quantization of what goes in.
Not here: what calls, compiles or tests them. No module has `from __future__ import annotations`,
    since TileLang reads the annotations of its programs.
"""

from tfq_bench_cuda.kernels.programs.conv import conv2d
from tfq_bench_cuda.kernels.programs.linear import linear
from tfq_bench_cuda.kernels.programs.quantize import quantize

__all__ = ["conv2d", "linear", "quantize"]
