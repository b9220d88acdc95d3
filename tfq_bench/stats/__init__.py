"""Intervals, comparisons and gates over numbers; knows numpy, not torch.

Here: arithmetic on numbers that are there: intervals, differences, rules, gates, and over many
    runs drifts and causes of changes.
Not here: metrics (`metrics`) and words about verdicts (`output`).
Imports: errors, foreign, keys, provenance, types.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tfq_bench.stats.results import CellResults

if TYPE_CHECKING:
    from tfq_bench.stats.causes import changes
    from tfq_bench.stats.compare import delta
    from tfq_bench.stats.drift import Trend
    from tfq_bench.stats.history import Series

__all__ = ["CellResults", "Series", "Trend", "changes", "delta"]

_LAZY = {"changes": "causes", "delta": "compare", "Series": "history", "Trend": "drift"}


def __getattr__(name: str) -> Any:
    # Lazily: run folders are read without numpy.
    if name in _LAZY:
        return getattr(import_module(f"tfq_bench.stats.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
