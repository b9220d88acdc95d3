"""Intervals, comparisons and gates over numbers; knows numpy, not torch.

Here: arithmetic on numbers that are there: intervals, differences, rules, gates.
Not here: metrics (`metrics`) and words about verdicts (`output`).
Imports: errors, foreign, keys, provenance, types.
"""

from tfq_bench.stats.compare import delta
from tfq_bench.stats.results import CellResults

__all__ = ["CellResults", "delta"]
