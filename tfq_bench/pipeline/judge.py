"""The stage `evaluate`: every metric of a cell, each on its own.

A metric is foreign code. What it raises, returns or writes into costs its own numbers and no
other's: its values are checked before they are stored, and what it was given is looked at again
before the next metric gets it.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from tfq_bench.errors import MetricError, StoreError, TfqError
from tfq_bench.foreign import interrupts
from tfq_bench.foreign.text import printable
from tfq_bench.pipeline.evaluate import CellInputs, written_into
from tfq_bench.pipeline.guard.settings import own_settings
from tfq_bench.pipeline.values import checked_values
from tfq_bench.protocols import NamesValues
from tfq_bench.seeds import derive
from tfq_bench.store.evaluations import read_values, write_values
from tfq_bench.types.tasks import RAISED

if TYPE_CHECKING:
    from tfq_bench.pipeline.cell_context import CellContext
    from tfq_bench.plan.plan import PlannedCell
    from tfq_bench.types import Component, MetricValue
    from tfq_bench.types.tasks import Progress

__all__ = ["FailedMetrics", "judge"]

log = logging.getLogger("tfq_bench.cell")


class FailedMetrics(MetricError):
    """Some metrics of a cell failed; the values of the others are stored.

    Args:
        reasons: why, by the metric's title in the suite, in suite order.
    """

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__(", ".join(reasons))
        self.reasons = reasons


def judge(
    context: CellContext, planned: PlannedCell, wanted: tuple[str, ...], progress: Progress
) -> None:
    """Computes the values of metrics of the plan that have none yet, and stores them.

    Args:
        wanted: under which keys; those of other metrics are left alone.

    Raises:
        FailedMetrics: after all others are stored.
        StoreError: the run folder is at fault, no metric.
    """
    inputs = CellInputs(context, planned)
    keys = planned.keys.evaluate
    reasons: dict[str, str] = {}
    for number, (metric, key) in enumerate(zip(context.plan.metrics, keys, strict=True)):
        progress(number / len(keys), f"metric {metric.title}")
        if key not in wanted or context.store.has("evaluate", key):
            continue
        begun = time.monotonic()
        try:
            with own_settings(derive(0, f"evaluate-{key}")):
                values = _evaluate(context, metric, keys, inputs)
            write_values(context.store, key, values)
            log.info("metric %s: %.1f s", metric.title, time.monotonic() - begun)
        except (
            BaseException
        ) as error:  # SystemExit, CancelledError: it is the metric's all the same
            if isinstance(error, StoreError) or interrupts.asked_for(error):
                raise
            log.exception("metric %s", metric.title)
            raised = "" if isinstance(error, TfqError) else f"{RAISED}{type(error).__name__}: "
            reasons[metric.title] = f"{raised}{_text(error)}{context.left_behind()}"
    if reasons:
        raise FailedMetrics(reasons)


def _evaluate(
    context: CellContext, component: Component, keys: tuple[str, ...], inputs: CellInputs
) -> tuple[MetricValue, ...]:
    """The values of one metric, once they, their names and all it was given are as they must be."""
    metric = context.create("metric", component)
    try:
        values = metric.evaluate(inputs)
    finally:  # the next metric gets what is stored, whatever became of this one
        changed = inputs.restore()
    if changed:
        raise MetricError(written_into(changed))
    context.check_models()
    checked = checked_values(values, reference=inputs.reference_cell)
    names = [value.definition.name for value in checked]
    if not isinstance(metric, NamesValues):  # what is announced, the plan has looked at
        _refuse_taken(context, component, names, keys)
    elif strangers := sorted(set(names) - set(metric.names)):
        raise MetricError(f"'{strangers[0]}' is not among its 'names' ({', '.join(metric.names)}).")
    return checked


def _refuse_taken(
    context: CellContext, metric: Component, given: list[str], keys: tuple[str, ...]
) -> None:
    """Nothing; MetricError when another metric gives a number of the same name.

    A plan sees this for metrics whose names it can know; here it is seen for the others.
    """
    mine = set(map(metric.titled, given))
    for other, key in zip(context.plan.metrics, keys, strict=True):
        if other is metric:
            continue
        names = set(getattr(context.create("metric", other), "names", ()))
        if context.store.has("evaluate", key):
            names |= {value.definition.name for value in read_values(context.store, key)}
        if taken := sorted(mine & set(map(other.titled, names))):
            raise MetricError(
                f"'{taken[0]}' is reported by metric '{other.title}' too, and a number needs a "
                "name of its own; give one of the two [[metric]] tables a label."
            )


def _text(error: BaseException) -> str:
    try:
        return printable(error)
    except Exception:  # foreign code: its `__str__` may do anything
        return "(its message cannot be read)"
