"""The SQLite file of a history: its tables, and whatever may be wrong with it in one sentence.

Three tables: `runs`, `numbers` (a row for each metric of each cell of a run) and `facts` (JSON by
its digest: definitions, environments, ingredients), so that what runs share is stored once. The
file's `application_id` says whose it is, its `user_version` is the schema number.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from tfq_bench.errors import StoreError
from tfq_bench.foreign.text import printable

__all__ = ["SCHEMA", "opened"]

SCHEMA = 1
APPLICATION = 0x54465148
"""`TFQH`, in the header of every history."""

_TABLES = """
CREATE TABLE runs (
    number INTEGER PRIMARY KEY, suite TEXT NOT NULL, plan TEXT NOT NULL, commit_id TEXT,
    edited INTEGER NOT NULL, added TEXT NOT NULL, content TEXT NOT NULL
);
CREATE TABLE numbers (
    run INTEGER NOT NULL REFERENCES runs, label TEXT NOT NULL, axes TEXT NOT NULL,
    cell TEXT NOT NULL, metric TEXT NOT NULL, definition TEXT NOT NULL, defined TEXT NOT NULL,
    value REAL NOT NULL, n INTEGER NOT NULL, low REAL, high REAL, level REAL, method TEXT,
    pairing TEXT, replicates BLOB NOT NULL, environment TEXT NOT NULL, plugins TEXT NOT NULL,
    ingredients TEXT NOT NULL, checked TEXT NOT NULL,
    PRIMARY KEY (run, axes, metric)
);
CREATE TABLE facts (id TEXT PRIMARY KEY, content TEXT NOT NULL);
"""


@contextlib.contextmanager
def opened(path: Path, *, write: bool = False) -> Iterator[sqlite3.Connection]:
    """The database, in one transaction.

    Args:
        write: makes it when there is none.

    Raises:
        StoreError: it is not there, is no history, is damaged, or cannot be read or written.
    """
    if not write and not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise StoreError(
            f"expected a history at '{path}', found {found}. "
            "'tfq-bench history add RUN --file FILE' makes one.",
            file=path,
            expected="a history",
            found=found,
        )
    mode = "rwc" if write else "ro"
    try:
        with contextlib.closing(
            sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}",
                uri=True,
                isolation_level=None,
                timeout=30,
            )
        ) as database:
            database.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            _refuse_foreign(database, write=write)
            yield database
            database.execute("COMMIT")
    except sqlite3.OperationalError as error:
        raise StoreError(
            f"cannot {'write' if write else 'read'} the history '{path}': "
            f"{printable(error, 200)}. See that its folder is there and can be written and "
            "that nobody else holds it, then repeat the command.",
            file=path,
        ) from None
    except (sqlite3.Error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(
            f"'{path}' is no history that can be used: {printable(error, 300)}. Take it "
            "from a backup, or name another file and add the runs again.",
            file=path,
        ) from None


def _refuse_foreign(database: sqlite3.Connection, *, write: bool) -> None:
    """Makes the tables of a new file; ValueError for one that is not ours."""
    (owner,) = database.execute("PRAGMA application_id").fetchone()
    (schema,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    if write and not (owner or schema or tables):
        for statement in filter(str.strip, _TABLES.split(";")):
            database.execute(statement)
        database.execute(f"PRAGMA application_id = {APPLICATION}")
        database.execute(f"PRAGMA user_version = {SCHEMA}")
    elif owner != APPLICATION:
        raise ValueError("it is an SQLite file of another program")
    elif schema != SCHEMA:
        raise ValueError(
            f"expected a history of schema {SCHEMA}, found {schema}; use the version of tfq-bench "
            "that wrote it"
        )
