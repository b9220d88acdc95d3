"""What only two GPUs can show: work that is spread over them gives the records of one process."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tfq_bench.executors.gpus import visible_gpus
from tfq_bench.store.run import RunFolder

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parent.parent.parent
METRICS = ("paired", "bits", "temporal", "trajectory", "timing")
DEVICE = "cuda"


@pytest.fixture
def run(tiny_suite, tmp_path):
    """A function that runs the tiny suite in a fresh process: its folder, and what it told."""
    suite = tiny_suite(metrics=METRICS, wbits=(8, 4))
    suite.write_text(suite.read_text().replace("[suite]", f'[suite]\ndevice = "{DEVICE}"'))

    def start(name, *arguments):
        path = tmp_path / name
        command = ["run", str(suite), "--run", str(path), "--no-report", *arguments]
        done = subprocess.run(
            [sys.executable, "-m", "tfq_bench", *command],
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return RunFolder.open(path), done.stderr

    return start


def test_spread_over_two_gpus(run):
    """Equal keys, environment and numbers, bit for bit; both GPUs had work."""
    gpus = visible_gpus()[:2]
    if len(gpus) < 2 or gpus[0].speed != gpus[1].speed:
        pytest.skip(f"needs two GPUs of one model, found {[gpu.model for gpu in gpus]}")
    inline, _ = run("inline")
    spread, told = run("spread", "--executor", "process", "--devices", "0,1", "--debug")
    used = re.findall(r"runs with CUDA_VISIBLE_DEVICES=(\S+)", told)
    assert {gpu.shown_by for gpu in gpus} == set(used)
    same_results(inline, spread)
    (environment,) = spread.environments().values()
    assert [gpus[0].speed["name"]] == [gpu["name"] for gpu in environment["hardware"]["gpus"]]


def same_results(first, second):
    """Both hold the same plan, with its keys, the same environment, metrics and numbers."""
    assert first.plan() == second.plan()
    assert first.environments() == second.environments()
    assert measured(first) == measured(second)
    script = ROOT / ".ci" / "same_numbers.py"
    told = subprocess.run(
        [sys.executable, str(script), str(first.path), str(second.path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout


def measured(folder):
    """Every metric of every cell, timings too, and where it was measured."""
    found = {
        (record.label, record.metric.definition.name, record.environment)
        for record in folder.records()
        if record.status == "ok" and record.metric is not None
    }
    assert len(found) > len(METRICS)
    return found
