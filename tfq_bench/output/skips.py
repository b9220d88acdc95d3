"""The cells that a plan leaves out, for `plan` and the end of `run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfq_bench.foreign.text import printable

if TYPE_CHECKING:
    from tfq_bench.plan.plan import Plan

__all__ = ["skip_lines"]


def skip_lines(plan: Plan) -> list[str]:
    """A line each reason: the labels of its cells, in the plan's order, then the reason."""
    labels: dict[str, list[str]] = {}
    for planned in plan.cells:
        if planned.skip is not None:
            labels.setdefault(planned.skip, []).append(planned.cell.label)
    return [printable(f"skipped: {_cells(found)}: {reason}") for reason, found in labels.items()]


def _cells(labels: list[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{len(labels)} cells ({'; '.join(labels)})"
