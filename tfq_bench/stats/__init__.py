"""Intervals, comparisons and gates over numbers; knows numpy, not torch.

Here: arithmetic on numbers that are there: intervals, differences, rules, gates.
Not here: metrics (`metrics`) and words about verdicts (`output`).
Imports: errors, foreign, keys, provenance, types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfq_bench.stats.results import CellResults

if TYPE_CHECKING:
    from tfq_bench.stats.compare import delta

__all__ = ["CellResults", "delta"]


def __getattr__(name: str) -> Any:
    # Lazily: run folders are read without numpy.
    if name == "delta":
        from tfq_bench.stats.compare import delta

        return delta
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
