"""Numbers and cells made by hand, and the gate on them."""

from dataclasses import replace

from tfq_bench.keys import definition_id
from tfq_bench.stats.gate import judge
from tfq_bench.stats.results import CellResults, Measured
from tfq_bench.stats.rules import BUILT_IN
from tfq_bench.types import Interval, MetricDefinition, MetricValue


def measured(
    value, error=None, *, name="fd", direction="lower", volatile=False, hardware="h", images=100
):
    """A number whose own interval is `± error`, without replicates."""
    definition = MetricDefinition(
        name=name,
        unit="",
        direction=direction,
        summary="",
        parameters={"images": images},
        volatile=volatile,
    )
    interval = None
    if error is not None:
        interval = Interval(low=value - error, high=value + error, level=0.95, method="m")
    return Measured(
        metric=MetricValue(definition=definition, value=value, n=images, interval=interval),
        definition=definition_id(definition),
        environment="e",
        hardware=hardware,
    )


def cell(*numbers, backend="cpu", status="ok", reason=None, key="k", seed="0"):
    """A cell whose place in the grid is its backend and its seed."""
    return CellResults(
        key=key,
        label=f"tiny / rtn W4A8 / {backend}",
        axes={"backend": backend, "seed": seed},
        status=status,
        reason=reason,
        values={number.metric.definition.name: number for number in numbers},
    )


def gate(run, base, *rules):
    """The result for lists of cells, or for one number each."""
    run, base = ([x] if isinstance(x, CellResults) else x for x in (run, base))
    run, base = ([cell(x)] if isinstance(x, Measured) else x for x in (run, base))
    return judge(run, base, (*BUILT_IN, *rules))


def outcomes(result):
    """Metric and outcome of every verdict, in order."""
    return [(verdict.metric, verdict.outcome) for verdict in result.verdicts]


def exact(value, *, margin=None, name="fd", direction="lower", **given):
    """A number with a margin, replicates, an interval or an n of its own."""
    number = measured(value, name=name, direction=direction)
    definition = replace(number.metric.definition, margin=margin)
    return replace(number, metric=replace(number.metric, definition=definition, **given))


def ms(value, hardware="h"):
    """A time in milliseconds."""
    return measured(value, name="ms", volatile=True, hardware=hardware)
