"""Series of a history made by hand."""

from tfq_bench.trends.series import HistoryRun, Point, Series

from .small_gate import measured

CODE = {"what": "quantizer 'rtn'", "code of my_method": "a" * 8, "version of torch": "2.14.1"}
MACHINE = {"what": "this machine", "processor": "AMD avx2"}


def point(value, number=1, *, error=None, code=(CODE, MACHINE), plugins=(), place=None, **given):
    """The number of one run."""
    return Point(
        run=HistoryRun(
            number=number,
            suite="s",
            plan=f"p{number}",
            commit=f"{number:040x}",
            edited=False,
            added="2026-11-01T00:00:00+00:00",
        ),
        measured=measured(value, error, **given),
        key="k",
        plugins=plugins,
        ingredients=code,
        environment=place or {},
    )


def series(values, *, ended=False, **given):
    """A series of these values, one a run."""
    points = tuple(point(value, number, **given) for number, value in enumerate(values, start=1))
    return of(points, ended=ended)


def of(points, *, ended=False):
    """A series of these points."""
    measured = points[-1].measured
    return Series(
        suite="s",
        label="tiny / rtn W4A8 / cpu",
        axes={"seed": "0"},
        metric=measured.metric.definition.name,
        definition=measured.definition,
        points=tuple(points),
        ended=ended,
    )
