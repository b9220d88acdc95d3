"""Reading a run: what became of each cell, kernels, deltas, glossary."""

import json
from dataclasses import replace

import pytest

from tfq_bench.store import records
from tfq_bench_reports.view.deltas import SAME
from tfq_bench_reports.view.reader import read_run


@pytest.fixture(scope="module")
def view(run):
    """The view of the synthetic run."""
    return read_run(run)


def value(view, table, metric, key):
    """The value of a metric and cell in one of the tables."""
    found = next(t for t in view.models[0].tables if t.key == table)
    column = [c.metric for c in found.columns].index(metric)
    row = next(r for r in found.rows if key in {cell.key for cell in r.cells})
    return row.values[column]


def test_outcomes(view):
    """Finished, failed and skipped cells are told apart, in plan order."""
    assert ["ok"] * 6 + ["failed", "skipped"] == [cell.status for cell in view.cells]


def test_cell_with_numbers_and_a_failure_is_partial(synthetic, tmp_path):
    """Numbers that are there stay; the failure is told beside them."""
    run = synthetic.write_run(tmp_path / "run", synthetic.CELLS[:2])
    old = next(r for r in run.records() if r.cell == "c1sim8")
    failure = replace(
        old, metric=None, definition=None, status="failed", failed_metric="x", reason="it died"
    )
    records.append(run.records_path, [failure])
    cell = read_run(run).cell("c1sim8")
    assert ("partial", "metric 'x': it died") == (cell.status, cell.trouble.reason)
    assert "psnr" in cell.metrics


def test_planned_cell_without_a_record_is_not_run(synthetic, tmp_path):
    """An interrupted run shows what is missing."""
    run = synthetic.write_run(tmp_path / "run", synthetic.CELLS[:2])
    lines = run.records_path.read_text().splitlines(keepends=True)
    full = [line for line in lines if '"cell":"c0fp"' in line]
    run.records_path.write_text("".join(full))
    assert "not run" == read_run(run).cell("c1sim8").status
    run.records_path.write_text("".join(full[:-1]))
    lacking = read_run(run).cell("c0fp")
    assert "partial" == lacking.status
    assert f"{len(full) - 1} of {len(full)} numbers" in lacking.trouble.reason


def test_families(view):
    """Metrics are sorted into tables by what they say about themselves."""
    columns = {
        table.key: [column.metric for column in table.columns] for table in view.models[0].tables
    }
    assert {
        "quality": ["fd-efficientnet-lite0", "precision-efficientnet-lite0"],
        "paired": [
            "psnr",
            "temporal-cosine",
            "temporal-error",
            "temporal-mismatch",
            "trajectory-divergence",
        ],
        "cost": [
            "calibration-network-calls",
            "calibration-peak-bytes",
            "calibration-seconds",
            "latency-ms",
            "speedup-vs-fp32-eager",
        ],
        "facts": ["mac-share-low-bit", "mean-weight-bits", "size-bytes"],
    } == columns


def test_paired_delta_beats_the_width_of_the_values(view):
    """Cells that share their noise are told apart although their own intervals overlap."""
    found = value(view, "quality", "fd-efficientnet-lite0", "c3sim6")
    assert ("worse", True) == (found.delta.word, found.delta.paired)
    assert found.delta.text.startswith("+")
    near = value(view, "quality", "fd-efficientnet-lite0", "c1sim8")
    assert SAME == near.delta.word


def test_exact_numbers_need_no_interval(view):
    """A size is smaller or it is not; bytes are printed in MB."""
    found = value(view, "facts", "size-bytes", "c2cpu8")
    assert ("6.735", "better", "") == (found.text, found.delta.word, found.delta.span)


def test_kernels_count_what_stayed_float(view):
    """Shares are of the whole network, so layers that were never quantized show."""
    (kernels, _) = view.kernels
    shares = {share.name: round(share.share, 4) for share in kernels.shares}
    assert {"W8A8": 0.9, "fallback": 0.01, "not quantized": 0.09} == shares
    (fallback,) = kernels.fallbacks
    assert ("groups are not supported", ("out.conv",)) == (fallback.reason, fallback.layers)


def test_glossary_explains_every_definition(view):
    """Each id stands once, with its parameters, its metric and the options that were set."""
    used = {i for cell in view.cells for i in cell.definitions.values()}
    assert used == {entry.id for entry in view.glossary}
    parameters = json.loads(view.glossary[0].parameters)
    assert parameters["formula"] == 1
    assert parameters["measured by"] == {"metric": "synthetic:numbers", "scale": 2.0}
