"""Gate results made by hand."""

import pytest

from tfq_bench.stats.compare import Delta
from tfq_bench.stats.verdicts import GateResult, Verdict
from tfq_bench.types import Interval


@pytest.fixture
def verdict():
    """A function that makes a verdict with numbers; every field may be replaced."""

    def make(outcome="pass", **changes):
        interval = Interval(low=2.5, high=3.5, level=0.95, method="m")
        fields = {
            "label": "tiny / rtn W4A8 / cpu",
            "metric": "fd",
            "fails": outcome in ("failed", "regressed", "missing"),
            "rule": "no worse than 2 %",
            "message": f"found 103, {outcome}. Definition: fd@01234567",
            "value": 103.0,
            "baseline": 100.0,
            "delta": Delta(value=3.0, interval=interval, paired=True),
        }
        return Verdict(outcome=outcome, **{**fields, **changes})

    return make


@pytest.fixture
def result():
    """A function that makes a gate result of verdicts."""

    def make(*verdicts, notes=()):
        return GateResult(verdicts=verdicts, notes=notes, compared=len(verdicts))

    return make
