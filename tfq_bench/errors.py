"""The errors that users and plugin authors see, as one tree.

    TfqError                     anything the tool says to its user; `exit_code` is the process's
    ├── UsageError               a wrong argument or option on the command line          exit 2
    ├── SuiteError               a suite, rules or baseline file that cannot be used     exit 2
    ├── PluginError              something about an installed plugin                     exit 2
    │   ├── BrokenPlugin         its entry point cannot be imported or validated
    │   ├── PluginConflict       two distributions offer one name
    │   └── IncompatiblePlugin   it was written for another plugin API
    ├── AssetError               weights or statistics missing or with another digest    exit 2
    ├── StoreError               a run folder or artefact that cannot be read or written exit 2
    │   └── DamagedArtefact      it is not what was written; a run makes it again
    ├── CellError                one cell cannot go on; the others do                    exit 3
    │   ├── CalibrationError
    │   ├── QuantizationError
    │   ├── LoweringError
    │   └── MetricError
    ├── NotComparable            two numbers of different definitions                    exit 4
    └── NothingToDo              nothing to run or compare                               exit 5

A message says what was expected, what was found, where, and what to do next. What of it a program
may want to know is in the error's `context` as well: `--json`, reports and tests read it there.
"""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from tfq_bench.foreign.text import printable

__all__ = [
    "AssetError",
    "BrokenPlugin",
    "CalibrationError",
    "CellError",
    "DamagedArtefact",
    "ErrorContext",
    "IncompatiblePlugin",
    "LoweringError",
    "MetricError",
    "NotComparable",
    "NothingToDo",
    "PluginConflict",
    "PluginError",
    "QuantizationError",
    "StoreError",
    "SuiteError",
    "TfqError",
    "UsageError",
    "locating",
    "nearest",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorContext:
    """What an error is about, as far as it is known: text, or a number or truth value.

    Args:
        component: which model, quantizer, backend, metric or asset.
        key: which option or key of a file.
        layer: its name in the network.
        file: path of the file, or what messages call it.
        expected, found: what should have been there, and what was; other values as they are shown.
    """

    component: str | None = None
    key: str | None = None
    layer: str | None = None
    file: str | None = None
    expected: str | float | bool | None = None
    found: str | float | bool | None = None

    def known(self) -> dict[str, str | float | bool]:
        """The fields that say something, in this order."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class TfqError(Exception):
    """Base of everything that the tool reports without a traceback.

    Args:
        message: one line, whatever foreign text it quotes.
        details: further lines, shown below it.
        context: fields of `ErrorContext`; nothing of them is added to the message.
    """

    exit_code = 2

    def __init__(
        self, message: object = "", *, details: Sequence[str] = (), **context: Any
    ) -> None:
        super().__init__("\n".join([str(message), *details]))
        self.lines = (str(message), *details)
        self.context = _context(context)


@contextlib.contextmanager
def locating(**context: Any) -> Iterator[None]:
    """Errors raised inside have these fields of `ErrorContext`, where they have no value yet."""
    try:
        yield
    except TfqError as error:
        error.context = _context(_context(context).known() | error.context.known())
        raise


def _context(given: Mapping[str, Any]) -> ErrorContext:
    shown: dict[str, Any] = {name: _shown(value) for name, value in given.items()}
    return ErrorContext(**shown)


def _shown(value: Any) -> str | float | bool | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and abs(value) < math.inf and abs(value) < 1 << 63:
        return value
    try:
        return printable(value if isinstance(value, str | PurePath) else repr(value), 200)
    except ValueError:  # a whole number of more digits than Python prints
        return "a whole number of thousands of digits"


class UsageError(TfqError):
    """A wrong argument or option on the command line."""


class SuiteError(TfqError):
    """A suite, rules or baseline file that cannot be used as it is."""


class PluginError(TfqError):
    """Something about an installed plugin."""


class BrokenPlugin(PluginError):
    """A plugin whose entry point cannot be imported or validated."""


class PluginConflict(PluginError):
    """Two distributions offer a provider of the same kind and name."""


class IncompatiblePlugin(PluginError):
    """A plugin written for another version of the plugin API."""


class AssetError(TfqError):
    """A declared file that is missing or has another digest."""


class StoreError(TfqError):
    """A run folder or artefact that cannot be read or written."""


class DamagedArtefact(StoreError):
    """A finished artefact that is not what was written.

    Args:
        found: what is wrong with it, as a sentence.
        stage, key: which it is.
    """

    def __init__(self, found: str, *, stage: str, key: str) -> None:
        super().__init__(
            f"{found} 'tfq-bench run' removes it and makes it again.", component=stage, key=key
        )
        self.found, self.stage, self.key = found, stage, key


class CellError(TfqError):
    """One cell cannot go on; the run goes on with the others."""

    exit_code = 3


class CalibrationError(CellError):
    """Calibration data could not be captured or do not fit the model."""


class QuantizationError(CellError):
    """A quantizer could not produce a valid state."""


class LoweringError(CellError):
    """A backend could not turn a state into kernels."""


class MetricError(CellError):
    """A metric could not be computed from what the cell produced."""


class NotComparable(TfqError):
    """Two numbers whose definitions differ."""

    exit_code = 4


class NothingToDo(TfqError):
    """Nothing to run or to compare."""

    exit_code = 5


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the three known names closest to `name`, or lists them all.

    >>> nearest("rnt", ["rtn", "fp"])
    "did you mean 'rtn'? Known: fp, rtn."
    """
    names = sorted(known)
    if not names:
        return "None is installed."
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    listing = ", ".join(names)
    if not close:
        return f"known: {listing}."
    return f"did you mean {' or '.join(repr(c) for c in close)}? Known: {listing}."
