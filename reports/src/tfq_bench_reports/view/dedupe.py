"""Cells that show the same stand together: one mark, one line, one row under one name.

A simulated cell and the lowered cell of the same state use the same integers, so most of their
numbers are equal to the last bit. Drawn twice they hide each other.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from tfq_bench_reports.view.naming import joined
from tfq_bench_reports.view.types import CellView

__all__ = ["Merged", "fingerprint", "joined_name", "merged", "point"]

_WHERE = frozenset({"backend", "backend_options"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """Cells of one point of the grid that show the same, in plan order; often just one."""

    cells: tuple[CellView, ...]

    @property
    def name(self) -> str:
        """One name for all: `rtn W4A8 · simulate, cpu`."""
        return joined_name(self.cells)

    @property
    def lead(self) -> CellView:
        """The cell whose numbers stand for all: a lowered one where there is one."""
        return next((cell for cell in self.cells if cell.execution == "lowered"), self.cells[0])

    @property
    def execution(self) -> str:
        """How all of them were executed; `both` for simulated and lowered ones."""
        kinds = {cell.execution for cell in self.cells}
        return "both" if len(kinds) > 1 else self.lead.execution


def joined_name(cells: Sequence[CellView]) -> str:
    """The name of a cell, or one name for several that differ in backend or seed only."""
    return cells[0].name if len(cells) == 1 else joined([cell.parts for cell in cells])


def merged(cells: Iterable[CellView], shown: Callable[[CellView], Hashable]) -> tuple[Merged, ...]:
    """Cells of one point of the grid for which `shown` is equal, each group at its first cell."""
    groups: dict[Hashable, list[CellView]] = {}
    for cell in cells:
        groups.setdefault((point(cell), shown(cell)), []).append(cell)
    return tuple(Merged(cells=tuple(group)) for group in groups.values())


def point(cell: CellView, *, seed: bool = True) -> Hashable:
    """Everything that tells two cells apart besides the backend (and the seed)."""
    left_out = _WHERE if seed else _WHERE | {"seed"}
    return tuple(sorted((axis, text) for axis, text in cell.axes.items() if axis not in left_out))


def fingerprint(cell: CellView, name: str) -> Hashable:
    """What a table or a chart shows of a metric; None where the cell does not have it.

    Numbers are compared as text, because a NaN is not equal to itself.
    """
    value = cell.metrics.get(name)
    if value is None:
        return None
    ends = None if value.interval is None else (value.interval.low, value.interval.high)
    return (cell.definitions[name], value.n, repr(value.value), repr(ends))
