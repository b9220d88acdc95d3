"""`history.sqlite`: the numbers of many runs in one file, in the order in which they were added.

Each row of `numbers` carries a checksum over itself, and each run one over its rows: a number that
was changed, lost or added by hand is refused. `history_database` has the tables.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from tfq_bench.errors import NothingToDo
from tfq_bench.foreign.text import parse_json
from tfq_bench.keys import digest
from tfq_bench.provenance.commits import Commit
from tfq_bench.stats.rules import fits
from tfq_bench.store.history_database import opened
from tfq_bench.store.history_rows import COLUMNS, Row, point_of, rows_of, whole
from tfq_bench.store.run import RunFolder
from tfq_bench.trends.series import HistoryRun, Point, Series

__all__ = ["Added", "Chosen", "HistoryFile"]

_PLACE = ("suite", "axes", "metric")
_RUN = "number, suite, plan, commit_id, edited, added"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which numbers of a history are asked for.

    Args:
        cell, metric, suite: the label or name itself, or a shell pattern.
        since: number of the first run that counts.
    """

    cell: str = "*"
    metric: str = "*"
    suite: str = "*"
    since: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What became of a run that was to be added.

    Args:
        numbers: how many of its numbers the history holds.
        new: how many of them were not there before.
        left_out: failed cells and numbers that compare with nothing, in words.
    """

    run: HistoryRun
    numbers: int
    new: int
    left_out: tuple[str, ...]


class HistoryFile:
    """A history on disk; made by the first `add`.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(
        self, folder: RunFolder, commit: Commit | None, *, allow_incomplete: bool = False
    ) -> Added:
        """Adds a run's numbers, once: equal numbers of one commit are one run.

        A run whose commit is unknown is the one that is there with equal numbers. One that has
        grown since it was added (a cell was repaired) gets the numbers that it lacked.

        Raises:
            SuiteError: a cell is not finished, unless `allow_incomplete`.
            NothingToDo: the run has no numbers.
            StoreError: the file is no history, is damaged, or cannot be written.
        """
        rows, facts, left_out = rows_of(folder, allow_incomplete=allow_incomplete)
        if not rows:
            raise NothingToDo(f"the run at '{folder.path}' has no numbers to add.")
        checks = {row["checked"] for row in rows}
        plan = folder.plan()
        with opened(self.path, write=True) as database:
            number = _same_run(database, plan["id"], checks, commit)
            if number is None:
                number = _new_run(database, plan, commit)
            elif commit is not None:
                database.execute(
                    "UPDATE runs SET commit_id = ?, edited = ? WHERE number = ?",
                    (commit.name, commit.edited, number),
                )
            before = _checks(database, number)
            database.executemany("INSERT OR IGNORE INTO facts VALUES (?, ?)", facts.items())
            columns = ("run", *COLUMNS, "checked")
            database.executemany(
                f"INSERT INTO numbers ({', '.join(columns)}) "
                f"VALUES ({', '.join('?' * len(columns))})",
                [
                    (number, *(row[column] for column in columns[1:]))
                    for row in rows
                    if row["checked"] not in before
                ],
            )
            held = checks | before
            database.execute("UPDATE runs SET content = ? WHERE number = ?", (_seal(held), number))
            return Added(
                run=_run(database, number),
                numbers=len(held),
                new=len(checks - before),
                left_out=left_out,
            )

    def runs(self) -> tuple[HistoryRun, ...]:
        """Every run, in order.

        Raises:
            StoreError: there is no such file, it is no history, or it was changed by hand.
        """
        with opened(self.path) as database:
            for number, content in database.execute("SELECT number, content FROM runs"):
                if _seal(_checks(database, number)) != content:
                    raise ValueError(f"numbers of run {number} were changed, lost or added")
            rows = database.execute(f"SELECT {_RUN} FROM runs ORDER BY number")
            found = tuple(_history_run(row) for row in rows)
            if [run.number for run in found] != list(range(1, len(found) + 1)):
                raise ValueError("runs were lost")
            return found

    def series(self, chosen: Chosen) -> Iterator[Series]:
        """The chosen series, by suite, cell and metric; those of one metric by their first run.

        Raises:
            StoreError: as `runs`.
        """
        runs = {run.number: run for run in self.runs()}
        with opened(self.path) as database:
            facts = _Facts(database)
            rows = database.execute(
                f"SELECT suite, run, {', '.join(COLUMNS)}, checked {_from(database, chosen)} "
                "ORDER BY suite, axes, metric, run"
            )
            names = ("suite", "run", *COLUMNS, "checked")
            found = (dict(zip(names, row, strict=True)) for row in rows)
            # One metric of one cell at a time: replicates of all runs would fill the memory.
            for _, group in groupby(found, key=lambda row: tuple(row[name] for name in _PLACE)):
                yield from _series([whole(row) for row in group], runs, facts)

    def count(self, chosen: Chosen) -> int:
        """How many metrics of cells are chosen, each once whatever its definitions."""
        with opened(self.path) as database:
            places = f"SELECT DISTINCT {', '.join(_PLACE)} {_from(database, chosen)}"
            (number,) = database.execute(f"SELECT COUNT(*) FROM ({places})").fetchone()
            return int(number)

    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The labels of cells and the names of metrics, sorted."""
        with opened(self.path) as database:
            labels, metrics = (
                database.execute(f"SELECT DISTINCT {column} FROM numbers ORDER BY {column}")
                for column in ("label", "metric")
            )
            return tuple(name for (name,) in labels), tuple(name for (name,) in metrics)


def _from(database: sqlite3.Connection, chosen: Chosen) -> str:
    """The end of a query for the chosen numbers with their runs."""

    def fit(suite: str, label: str, metric: str) -> bool:
        return (
            fits(suite, chosen.suite) and fits(label, chosen.cell) and fits(metric, chosen.metric)
        )

    database.create_function("chosen", 3, fit)
    return (
        "FROM numbers JOIN runs ON run = number "
        f"WHERE run >= {chosen.since:d} AND chosen(suite, label, metric)"
    )


def _seal(checks: Iterable[str]) -> str:
    return digest(sorted(checks))


def _checks(database: sqlite3.Connection, number: int) -> set[str]:
    found = database.execute("SELECT checked FROM numbers WHERE run = ?", (number,))
    return {check for (check,) in found}


def _same_run(
    database: sqlite3.Connection, plan: str, checks: set[str], commit: Commit | None
) -> int | None:
    """The number of the run that these numbers are of, None when it is not there."""
    query = "SELECT number, commit_id FROM runs WHERE plan = ? ORDER BY number DESC"
    for number, name in database.execute(query, (plan,)).fetchall():
        if commit is None or name in (None, commit.name):
            before = _checks(database, number)
            if before <= checks or (commit is None and checks <= before):
                return int(number)
    return None


def _new_run(database: sqlite3.Connection, plan: Mapping[str, Any], commit: Commit | None) -> int:
    (last,) = database.execute("SELECT COALESCE(MAX(number), 0) FROM runs").fetchone()
    name, edited = (None, False) if commit is None else (commit.name, commit.edited)
    added = datetime.now(UTC).isoformat(timespec="seconds")
    database.execute(
        f"INSERT INTO runs ({_RUN}, content) VALUES (?, ?, ?, ?, ?, ?, '')",
        (last + 1, plan["suite"]["name"], plan["id"], name, edited, added),
    )
    return int(last) + 1


def _run(database: sqlite3.Connection, number: int) -> HistoryRun:
    found = database.execute(f"SELECT {_RUN} FROM runs WHERE number = ?", (number,))
    return _history_run(found.fetchone())


def _history_run(row: tuple[Any, ...]) -> HistoryRun:
    number, suite, plan, commit, edited, added = row
    return HistoryRun(
        number=number,
        suite=suite,
        plan=plan,
        commit=commit,
        edited=bool(edited),
        added=added,
    )


class _Facts:
    """Reads each fact once."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._known: dict[str, Mapping[str, Any]] = {}

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        if name not in self._known:
            query = "SELECT content FROM facts WHERE id = ?"
            found = self._database.execute(query, (name,)).fetchone()
            content = None if found is None else parse_json(found[0])
            if not isinstance(content, dict) or digest(content) != name:
                raise ValueError(f"the fact '{name}' was changed or lost")
            self._known[name] = content
        return self._known[name]


def _series(rows: list[Row], runs: Mapping[int, HistoryRun], facts: _Facts) -> Iterator[Series]:
    """One for each definition of one metric of one cell."""
    points: dict[str, list[Point]] = {}
    for row in rows:
        points.setdefault(row["definition"], []).append(point_of(row, runs[row["run"]], facts))
    last = rows[-1]
    for definition, found in points.items():
        yield Series(
            suite=last["suite"],
            label=last["label"],
            axes=parse_json(last["axes"]),
            metric=last["metric"],
            definition=definition,
            points=tuple(found),
            ended=definition != last["definition"],
        )
