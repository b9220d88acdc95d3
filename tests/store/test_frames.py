"""The pandas view has the documented columns and sensible empty values."""

import math

import pandas as pd
import pytest

import tfq_bench
from tfq_bench.errors import StoreError
from tfq_bench.store.frames import COLUMNS
from tfq_bench.store.records import append


def test_records_become_a_tidy_table(run, record):
    """One row per cell and metric, numbers as numbers, axes as columns."""
    append(run.records_path, [record("c0", 1.5, replicates=(1.0, 2.0)), record("c1", math.nan)])
    frame = tfq_bench.load_records(run.path)
    assert list(COLUMNS) == list(frame.columns)
    row = frame.iloc[0]
    assert ("c0", "rtn", 4, 8, 1.5, 1.0, 2.0) == tuple(
        row[["cell", "quantizer", "wbits", "abits", "value", "low", "high"]]
    )
    assert (1.0, 2.0) == row["replicates"]
    assert math.isnan(frame.iloc[1]["value"])
    assert 2.75 == frame.assign(value=[1.5, 4.0])["value"].mean()


def test_a_failed_cell_is_a_row_without_a_metric(run, record):
    """It is not dropped, and says why."""
    append(run.records_path, [record(value=None, status="failed", reason="no memory")])
    row = tfq_bench.load_records(run).iloc[0]
    assert ("failed", "quantize", "no memory") == (row["status"], row["stage"], row["reason"])
    assert row["metric"] is None
    assert row["definition"] is None
    assert math.isnan(row["value"])
    assert pd.isna(row["n"])
    assert () == row["replicates"]


def test_a_run_without_records_is_an_empty_table(run):
    """All columns are there, with their types."""
    frame = tfq_bench.load_records(str(run.path))
    assert (0, len(COLUMNS)) == frame.shape
    assert "float64" == frame["value"].dtype


def test_a_folder_that_is_not_a_run_is_refused(tmp_path):
    """With a message, as on the command line."""
    with pytest.raises(StoreError, match="expected a run folder"):
        tfq_bench.load_records(tmp_path)
