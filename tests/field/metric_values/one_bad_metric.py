"""The source of a plugin whose metric does as a test says, and what a run must lose by it."""

METRIC = """
import math
from dataclasses import replace

import numpy as np
import torch

from tfq_bench import api

GOOD = api.MetricValue(
    definition=api.MetricDefinition(
        name="score", unit="", direction="higher", summary="A score.", parameters={{"formula": 1}}
    ),
    value=1.0,
    n=4,
)


def other(**changes):
    return replace(GOOD, definition=replace(GOOD.definition, **changes))


class Mine:
    def evaluate(self, inputs):
        {body}
        return {values}


@api.hookimpl
def tfq_metrics():
    yield api.MetricProvider(name="mine", summary="", factory=f"{{__name__}}:Mine")
"""


def source(values="[GOOD]", body="pass"):
    """Source of a plugin whose metric returns this."""
    return METRIC.format(values=values, body=body)


def check_only_mine_failed(code, out, records, reason):
    """Exit code 3, the reason in words, and every number of the other metrics."""
    assert 3 == code
    failed = [r for r in records if r.status == "failed"]
    assert {("mine", "evaluate")} == {(r.failed_metric, r.stage) for r in failed}
    for record in failed:
        assert reason in record.reason, record.reason
        assert record.reason.isprintable()
        assert f"at evaluate, metric 'mine': {record.reason}" in out
    names = {r.metric.definition.name for r in records if r.metric is not None}
    assert {"psnr", "mean-weight-bits", "size-bytes"} <= names
    return failed
