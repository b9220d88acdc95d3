"""Cells of tools that quantize and execute by themselves: never taken for a method's.

Such a cell has the noise, calibration data and metrics of all others, but which layers it
quantizes, how, and by which arithmetic is the tool's own. So it is ranked with no method, and what
it tells of itself stands beside its numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tfq_bench.api import StoreError, printable
from tfq_bench_reports.view.findings import Point, amount, metric_rows
from tfq_bench_reports.view.key_metrics import key_metrics
from tfq_bench_reports.view.redact import redact
from tfq_bench_reports.view.types import CellView, KernelsView

if TYPE_CHECKING:
    from tfq_bench.store import RunFolder

__all__ = ["contestants", "remark_of", "with_tools"]

_LONGEST = 400


def contestants(cells: Sequence[CellView]) -> Iterable[Point]:
    """What the numbers of the external cells of one model say, and what they do not."""
    names = key_metrics(cells)
    external = [cell for cell in cells if cell.execution == "external"]
    told: dict[str, list[str]] = {}
    for what, name in (("", names.paired), ("speed ", names.speedup)):
        for row in metric_rows(external, name) if name else ():
            if row.values[0] is not None:
                told.setdefault(row.name, []).append(f"{what}{amount(row, name or '')}")
    if told:
        each = "; ".join(f"{row}: {', '.join(said)}" for row, said in told.items())
        yield Point(
            kind="caution",
            title="Tools that are no method",
            text=f"{each}. Speeds are multiples of full precision's in the same process. Each tool "
            "quantizes and executes by itself; which layers and how is its own choice, not the "
            "policy under which methods are compared, so none is ranked with them. Noise, "
            "calibration data and metrics are the same.",
        )


def remark_of(run: RunFolder, planned: Mapping[str, Any]) -> str:
    """The remarks of an external cell's tool in one line; empty for others, or before it ran."""
    if planned["execution"] != "external":
        return ""
    remarks = _facts(run, planned, "lower").get("details", {}).get("remarks", ())
    return printable(redact(" ".join(map(str, remarks))), _LONGEST)


def with_tools(view: KernelsView, run: RunFolder, planned: Mapping[str, Any]) -> KernelsView:
    """The view with what an external cell says of its tools; that of others as it is."""
    if view.cell.execution != "external":
        return view
    tools = _facts(run, planned, "quantize").get("tools", ())
    settings = _facts(run, planned, "lower").get("details", {}).get("settings", {})
    return replace(
        view,
        tools=printable(", ".join(str(tool).replace("==", " ") for tool in tools), _LONGEST),
        settings=printable(
            redact(", ".join(f"{name} = {value}" for name, value in settings.items())), _LONGEST
        ),
    )


def _facts(run: RunFolder, planned: Mapping[str, Any], stage: str) -> Mapping[str, Any]:
    """The result of a stage; nothing where it is not there, or not whole: `trouble` tells that."""
    key = planned["keys"].get(stage)
    try:
        return run.artefacts.result(stage, key) if key and run.artefacts.has(stage, key) else {}
    except StoreError:
        return {}
