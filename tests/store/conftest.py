"""Records and runs made by hand, as small as they can be."""

import pytest

from tfq_bench.keys import definition_id
from tfq_bench.store.run import RunFolder
from tfq_bench.types import Interval, MetricDefinition, MetricValue, Record

AXES = {"model": "tiny", "quantizer": "rtn", "scheme": "W4A8", "wbits": "4", "abits": "8"}
AXES |= {"policy": "uniform", "backend": "simulate", "seed": "0"}


@pytest.fixture
def record():
    """A function that makes a record; `value=None` makes one without a metric."""

    def make(cell="c0", value=1.5, *, name="fd-tiny", status="ok", reason=None, replicates=()):
        definition = MetricDefinition(
            name=name, unit="", direction="lower", summary="s", parameters={"images": 4}
        )
        metric = None
        if value is not None:
            metric = MetricValue(
                definition=definition,
                value=value,
                n=4,
                interval=Interval(low=1.0, high=2.0, level=0.95, method="bootstrap-se"),
                replicates=replicates,
                pairing="p",
                reference="fp0",
                series={"per-step": (0.5, float("nan"))},
            )
        return Record(
            run="r",
            cell=cell,
            label=f"tiny / rtn W4A8 / {cell}",
            axes=AXES,
            status=status,
            execution="simulated",
            environment="e",
            plugins=("tfq-bench==0.1.0",),
            metric=metric,
            definition=definition_id(definition) if metric else None,
            stage="quantize" if status == "failed" else None,
            reason=reason,
            source=f"m-{name}" if status == "ok" else None,
            source_values=int(status == "ok"),
        )

    return make


@pytest.fixture
def plan():
    """A function that makes the content of a plan.json with the given cells."""

    def make(*cells, sample=(), metrics=("fd-tiny",)):
        keys = {"sample": list(sample), "evaluate": [f"m-{name}" for name in metrics]}
        return {
            "schema": 2,
            "id": "r",
            "suite": {"name": "s"},
            "shards": [[0, 2], [2, 4]],
            "cells": [
                {"key": cell, "label": f"tiny / rtn W4A8 / {cell}", "axes": AXES}
                | {"status": "planned", "reason": None, "keys": keys}
                | {"execution": "simulated", "reference": None}
                for cell in cells
            ],
        }

    return make


@pytest.fixture
def run(tmp_path, plan):
    """A run folder with the cells c0 and c1 and no records."""
    run = RunFolder.prepare(tmp_path / "run")
    run.write("schema = 1\n", plan("c0", "c1", sample=("s0", "s1")))
    return run
