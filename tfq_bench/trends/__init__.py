"""Numbers over many runs: series, slow drifts, and causes of changes; knows no torch.

Here: series of one number of one cell by its definition, trends with a stated share of false
    alarms, and where and why a number changed.
Not here: the file that keeps them (`store.history`), limits and intervals (`stats`), and words
    about verdicts (`output`). `stats` is imported by what results are made of, this is not: an edit
    here computes nothing again.
Imports: errors, provenance, stats, types.
"""

from tfq_bench.trends.causes import changes
from tfq_bench.trends.drift import Trend
from tfq_bench.trends.series import HistoryRun, Point, Series

__all__ = ["HistoryRun", "Point", "Series", "Trend", "changes"]
