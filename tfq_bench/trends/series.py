"""What a history holds: the numbers of one metric of one cell, run after run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfq_bench.stats.results import Measured

__all__ = ["HistoryRun", "Point", "Series"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRun:
    """A run that was added to a history.

    Args:
        number: its place in the order in which runs were added, from 1 on.
        suite: the suite's name. plan: the plan's id.
        commit: of the code that was measured, hexadecimal; None when unknown.
        edited: True when tracked files differed from that commit.
        added: when, ISO 8601 in UTC.
    """

    number: int
    suite: str
    plan: str
    commit: str | None
    edited: bool
    added: str

    @property
    def commit_text(self) -> str:
        """The commit for tables, `+` behind it where files were edited; `-` when unknown."""
        return "-" if self.commit is None else f"{self.commit[:10]}{'+' if self.edited else ''}"

    @property
    def name(self) -> str:
        """What messages call it: `run 3 (1a2b3c4d5e)`."""
        known = "" if self.commit is None else f" ({self.commit_text})"
        return f"run {self.number}{known}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A number of one run, and what it was made of.

    Args:
        key: content key of the cell.
        plugins: `distribution==version` of everything the cell used.
        ingredients: what the number depends on, as plans keep it: code, versions, options, machine;
            empty for runs of versions that did not note it.
        environment: content of the run's `env-<id>.json`; empty when that is not on record.
    """

    run: HistoryRun
    measured: Measured
    key: str
    plugins: tuple[str, ...]
    ingredients: tuple[Mapping[str, Any], ...]
    environment: Mapping[str, Any]

    @property
    def value(self) -> float:
        """The number, in its metric's unit."""
        return self.measured.metric.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The numbers of one metric of one cell under one definition; at least one, oldest first.

    Args:
        suite: its name; calibration and more are the suite's, and no part of axes or definition.
        label, axes: the cell's, see `types.Record`.
        definition: id of the metric's definition: where it changes, a new series begins.
        ended: a later run has the metric under another definition.
    """

    suite: str
    label: str
    axes: Mapping[str, str]
    metric: str
    definition: str
    points: tuple[Point, ...]
    ended: bool = False

    @property
    def unit(self) -> str:
        """The metric's unit."""
        return self.points[-1].measured.metric.definition.unit

    @property
    def seed(self) -> str:
        """The cell's seed, or the words that there is none."""
        return self.axes.get("seed", "no seed")
