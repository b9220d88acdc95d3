"""The closing table has a row per cell and as many columns as fit."""

import pytest

from tfq_bench.executors.inline import InlineExecutor
from tfq_bench.output.progress import ProgressLines
from tfq_bench.output.summary import summary
from tfq_bench.pipeline import cell
from tfq_bench.pipeline.run import execute_plan


@pytest.fixture
def shown(project, monkeypatch):
    """A function that runs a tiny suite and returns its summary, line by line."""

    def run(width=120, **options):
        monkeypatch.setenv("COLUMNS", str(width))
        found = project(metrics=("paired", "bits"), **options)
        executor = InlineExecutor(found.folder.path)
        watcher = ProgressLines(found.plan)
        execute_plan(
            found.plan, found.table, found.folder, executor, environment="e", watcher=watcher
        )
        text = summary(found.plan, found.folder.artefacts, found.folder.records())
        return text.splitlines()

    return run


def test_first_number_of_each_metric(shown):
    """Full precision has no distance to itself; the only model is not repeated in every row."""
    head, _, full, quantized, _ = shown()
    assert ["cell", "psnr", "mean-weight-bits"] == head.split()
    assert ["fp", "FP", "/", "eager", "32"] == full.split()
    assert quantized.startswith("rtn W8A8 / simulate ")
    assert "8" == quantized.split()[-1]


def test_number_of_images_is_told(shown):
    """How far a table can be trusted depends on it."""
    assert "6 images a cell." == shown(images=6)[-1]


def test_columns_that_do_not_fit_are_named(shown):
    """A narrow terminal gets fewer columns, never broken lines."""
    lines = shown(width=30)
    assert "4 images a cell. In the report: mean-weight-bits." == lines[-1]
    assert "psnr" in lines[0]
    assert all(len(line) <= 30 for line in lines[:-1])


def test_a_failed_cell_says_so_in_its_row(shown, monkeypatch):
    """A row without numbers would look like a gap in the metrics."""

    def broken(context, planned, task, progress):
        raise ValueError("boom")

    monkeypatch.setitem(cell._STAGES, "calibrate", broken)
    assert ["rtn", "W8A8", "/", "simulate", "failed"] == shown()[3].split()
