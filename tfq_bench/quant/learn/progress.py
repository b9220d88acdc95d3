"""Telling how long work will go on."""

from __future__ import annotations

import time

__all__ = ["ProgressEstimator"]


class ProgressEstimator:
    """How far the work is, and how long the rest will take at the speed so far.

    Args:
        total: expected cost of all work, in any unit.
    """

    def __init__(self, total: float) -> None:
        self._total, self._done, self._skipped = total, 0.0, 0.0
        self._begun = time.monotonic()

    def skip(self, cost: float) -> None:
        """Work that was found done already; it says nothing about the speed."""
        self._skipped += cost

    def advance(self, cost: float) -> None:
        """Work that was done just now."""
        self._done += cost

    def share(self, ahead: float = 0.0) -> float:
        """The finished fraction, `ahead` of unfinished work counted in."""
        return min(1.0, (self._skipped + self._done + ahead) / self._total)

    def left(self, ahead: float = 0.0) -> str:
        """For instance `1m20s left`."""
        done = self._done + ahead
        if done <= 0.0:
            return "time left unknown"
        rest = max(0.0, self._total - self._skipped - done)
        seconds = round((time.monotonic() - self._begun) * rest / done)
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        if hours:
            return f"{hours}h{minutes:02d}m left"
        return f"{minutes}m{seconds:02d}s left" if minutes else f"{seconds}s left"
