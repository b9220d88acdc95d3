"""Records as a pandas table: a view for scripts and notebooks, not the store."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfq_bench.store.baseline import run_facts
from tfq_bench.store.run import RunFolder

if TYPE_CHECKING:
    import pandas as pd

    from tfq_bench.types import Record

__all__ = ["COLUMNS", "load_records"]

log = logging.getLogger("tfq_bench.store")

COLUMNS = (
    "run",
    "cell",
    "label",
    "model",
    "quantizer",
    "scheme",
    "wbits",
    "abits",
    "policy",
    "backend",
    "seed",
    "status",
    "execution",
    "metric",
    "value",
    "low",
    "high",
    "level",
    "unit",
    "direction",
    "n",
    "definition",
    "reference",
    "reason",
    "stage",
    "failed_metric",
    "environment",
    "replicates",
)


def load_records(run: RunFolder | Path | str) -> pd.DataFrame:
    """A run's records as a tidy table: one row per (cell, metric), sorted by label and metric.

    A failed or skipped cell has one row without a metric, and so has a metric that failed or that
    gave no number for its cell. Absent text is None, absent numbers are
    NaN, absent replicates an empty tuple.

    ============= ======== ======================================================================
    column        type     meaning
    ============= ======== ======================================================================
    run           text     plan id
    cell          text     the cell's content key
    label         text     the cell's short name
    model ...     text     `model`, `quantizer`, `scheme`, `policy`, `backend`: the cell's axes
    wbits, abits  Int64    bits of weights and activations, 32 = not quantized
    seed          Int64    the cell's seed
    status        text     `ok`, `failed` or `skipped`
    execution     text     `full-precision`, `simulated` or `lowered`
    metric        text     the metric's name
    value         float64  in `unit`; NaN when it could not be computed
    low, high     float64  confidence interval at `level`
    unit          text     empty for a pure number
    direction     text     `lower`, `higher` (which is better) or `none`
    n             Int64    images or timed rounds behind the value
    definition    text     `name@digest`; compare only equal ones
    reference     text     key of the cell that a paired metric compares with
    reason        text     why the cell failed or was skipped
    stage         text     where it failed
    failed_metric text    name in the suite of a metric that failed
    environment   text     id of `env-<id>.json`
    replicates    object   tuple of floats, bootstrap replicates of the value
    ============= ======== ======================================================================

    Cells that are not finished are told in the log.

    Raises:
        StoreError: not a run folder, or one that cannot be read.
    """
    import pandas as pd

    folder = run if isinstance(run, RunFolder) else RunFolder.open(Path(run))
    lacking = [cell for cell in run_facts(folder) if cell.status == "unfinished"]
    if lacking:
        listing = "; ".join(f"{cell.label}: {cell.reason}" for cell in lacking[:5])
        log.warning("'%s': %d cells are not finished: %s", folder.path, len(lacking), listing)
    frame = pd.DataFrame([_row(record) for record in folder.records()], columns=list(COLUMNS))
    for name in ("wbits", "abits", "seed", "n"):
        frame[name] = pd.to_numeric(frame[name]).astype("Int64")
    for name in ("value", "low", "high", "level"):
        frame[name] = frame[name].astype("float64")
    return frame


def _row(record: Record) -> dict[str, Any]:
    metric = record.metric
    interval = metric.interval if metric else None
    axes = {
        name: record.axes.get(name)
        for name in ("model", "quantizer", "scheme", "wbits", "abits", "policy", "backend", "seed")
    }
    return {
        "run": record.run,
        "cell": record.cell,
        "label": record.label,
        **axes,
        "status": record.status,
        "execution": record.execution,
        "metric": metric.definition.name if metric else None,
        "value": metric.value if metric else math.nan,
        "low": interval.low if interval else math.nan,
        "high": interval.high if interval else math.nan,
        "level": interval.level if interval else math.nan,
        "unit": metric.definition.unit if metric else None,
        "direction": metric.definition.direction if metric else None,
        "n": metric.n if metric else None,
        "definition": record.definition,
        "reference": metric.reference if metric else None,
        "reason": record.reason,
        "stage": record.stage,
        "failed_metric": record.failed_metric,
        "environment": record.environment,
        "replicates": metric.replicates if metric else (),
    }
