"""Whole runs of a tiny suite, in this process or in one that may be killed."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfq_bench.cli import main
from tfq_bench.store.run import RunFolder

METRICS = ("paired", "timing", "bits", "temporal", "trajectory", "cost")


@pytest.fixture
def run(tiny_suite, tmp_path):
    """A function that runs the suite in this process and returns its run folder."""

    def start(name, *arguments, **options):
        suite = tiny_suite(metrics=METRICS, **options)
        folder = tmp_path / name
        assert 0 == main(["run", str(suite), "--run", str(folder), "--no-report", *arguments])
        return RunFolder.open(folder)

    return start


@pytest.fixture
def apart(tiny_suite, tmp_path):
    """A function that runs the suite in a process of its own and returns how that ended."""

    def start(name, *arguments, env=None):
        suite = tiny_suite(metrics=METRICS)
        root = Path(__file__).parents[2]
        search = os.pathsep.join([os.environ["PYTHONPATH"], str(root)])
        command = ["run", str(suite), "--run", str(tmp_path / name), "--no-report", *arguments]
        return subprocess.run(
            [sys.executable, "-m", "tfq_bench", *command],
            env={**os.environ, "PYTHONPATH": search, **(env or {})},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return start


@pytest.fixture
def facts():
    """A function that reduces a run to what must not depend on how it was carried out.

    The environment is left out, because a process apart sees what is really installed; of times
    and memory only the definitions are kept.
    """

    def reduce(folder):
        found = []
        for record in folder.records():
            metric = record.metric
            if metric is not None and metric.definition.volatile:
                metric = dataclasses.replace(metric, value=0.0, interval=None, n=0)
            found.append(repr(dataclasses.replace(record, environment="", metric=metric)))
        assert found
        return found

    return reduce
