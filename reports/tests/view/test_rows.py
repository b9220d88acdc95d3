"""Rows of tables: one for equal cells, one for the seeds of a cell, none lost."""

from dataclasses import replace

import pytest

from tfq_bench_reports.view.reader import read_run
from tfq_bench_reports.view.rows import seed_lines


def tables_of_run(synthetic, folder, cells):
    """Tables of a synthetic run by key."""
    run = synthetic.write_run(folder / "run", cells)
    (model,) = read_run(run).models
    return {table.key: table for table in model.tables}


def names(table):
    """Names of its rows, with their notes."""
    return {row.name: row.note for row in table.rows}


def value(table, row, metric):
    """The value of a row in the column of a metric."""
    column = [column.metric for column in table.columns].index(metric)
    return next(found for found in table.rows if found.name == row).values[column]


@pytest.fixture(scope="module")
def twins(synthetic, tmp_path_factory):
    """Tables of full precision and one cell, simulated and lowered, with equal numbers."""
    cells = (
        synthetic.CELLS[0],
        synthetic.Spec("sim", 8, "simulate", 2.0, draw=1),
        synthetic.Spec("cpu", 8, "cpu", 2.0, draw=1),
    )
    return tables_of_run(synthetic, tmp_path_factory.mktemp("twins"), cells)


@pytest.fixture(scope="module")
def seeds(synthetic, tmp_path_factory):
    """Tables of one cell of three seeds, the third of which failed, beside one of a single seed."""
    cells = (
        synthetic.CELLS[0],
        synthetic.Spec("a0", 4, "cpu", 20.0),
        synthetic.Spec("a1", 4, "cpu", 24.0, seed="1"),
        synthetic.Spec("a2", 4, "cpu", status="failed", reason="died", seed="2"),
        synthetic.Spec("b0", 8, "cpu", 2.0),
    )
    return tables_of_run(synthetic, tmp_path_factory.mktemp("seeds"), cells)


def test_equal_numbers_share_a_row(twins):
    """Simulated and lowered are one row with both badges where all numbers are equal."""
    for key in ("quality", "paired"):
        row = twins[key].rows[-1]
        assert "rtn W8A8 · simulate, cpu" == row.name
        assert ("simulated", "lowered") == row.badges
        assert ["sim", "cpu"] == [cell.key for cell in row.cells]


def test_speed_stands_under_the_lowered_name_alone(twins):
    """A simulated cell is in no name beside a latency; the row says that it is not timed."""
    row = twins["cost"].rows[-1]
    assert ("rtn W8A8 · cpu", ("lowered",)) == (row.name, row.badges)
    assert "simulate: same, but not timed" == row.note
    assert value(twins["cost"], row.name, "latency-ms") is not None
    assert "simulate: same where measured" == names(twins["facts"])["rtn W8A8 · cpu"]


def test_one_number_that_differs_keeps_both_rows(synthetic, tmp_path):
    """Nothing is hidden: cells that disagree anywhere in a table stand apart in it."""
    cells = (
        synthetic.CELLS[0],
        synthetic.Spec("sim", 8, "simulate", 2.0, draw=1),
        synthetic.Spec("cpu", 8, "cpu", 2.0, draw=2),
    )
    tables = tables_of_run(synthetic, tmp_path, cells)
    assert ["rtn W8A8 · simulate", "rtn W8A8 · cpu"] == list(names(tables["quality"]))[1:]


def test_seeds_are_one_row_of_mean_and_range(seeds):
    """W4A8 of seeds 0 and 1: the mean of both, and both as the ends."""
    row = "rtn W4A8 · cpu · seeds 0, 1"
    assert row in names(seeds["quality"])
    found = value(seeds["quality"], row, "fd-efficientnet-lite0")
    low, high = 150 + 20.0**1.5 / 3, 150 + 24.0**1.5 / 3
    assert (low + high) / 2 == pytest.approx(found.sort)
    assert f"{low:.1f} to {high:.1f}" == found.around
    assert "worse in both seeds" == found.delta.word
    assert ("worse", True) == (found.delta.agreed, found.delta.paired)


def test_every_seed_keeps_its_own_verdict(seeds):
    """The rows behind a mean are there with their intervals; single seeds are not repeated."""
    each = seeds["quality"].each
    assert ["rtn W4A8 · cpu · seed 0", "rtn W4A8 · cpu · seed 1"] == [row.name for row in each]
    assert all(row.values[0].around.startswith("±") for row in each)
    assert ["worse", "worse"] == [row.values[0].delta.word for row in each]


def test_failed_seed_keeps_its_row(seeds):
    """A mean over the seeds that finished does not hide the one that did not."""
    row = next(row for row in seeds["quality"].rows if row.trouble)
    assert ("rtn W4A8 · cpu · seed 2", "died") == (row.name, row.note)


def test_single_seed_keeps_its_interval(seeds):
    """Where there is one seed, nothing changes."""
    found = value(seeds["quality"], "rtn W8A8 · cpu · seed 0", "fd-efficientnet-lite0")
    assert found.around.startswith("±")


def test_seeds_that_disagree_are_counted(synthetic, tmp_path):
    """One good seed and one bad one are neither better nor worse."""
    cells = (
        synthetic.CELLS[0],
        synthetic.Spec("a", 4, "simulate", 0.1, seed="0"),
        synthetic.Spec("b", 4, "simulate", 30.0, seed="1"),
    )
    table = tables_of_run(synthetic, tmp_path, cells)["quality"]
    delta = value(table, "rtn W4A8 · simulate · seeds 0, 1", "fd-efficientnet-lite0").delta
    assert "no measurable difference in 1 of 2 seeds, worse in 1 of 2 seeds" == delta.word
    assert "" == delta.agreed


def test_twins_of_several_seeds_are_one_row(synthetic, tmp_path):
    """Both kinds of merging at once."""
    cells = (
        synthetic.CELLS[0],
        *(
            synthetic.Spec(f"{backend}{seed}", 4, backend, 20.0 + seed, seed=str(seed), draw=seed)
            for seed in (0, 1)
            for backend in ("simulate", "cpu")
        ),
    )
    tables = tables_of_run(synthetic, tmp_path, cells)
    assert "rtn W4A8 · simulate, cpu · seeds 0, 1" in names(tables["quality"])
    expected = ["rtn W4A8 · simulate, cpu · seed 0", "rtn W4A8 · simulate, cpu · seed 1"]
    assert expected == [row.name for row in tables["quality"].each]


def test_different_definitions_have_no_mean(synthetic, tmp_path):
    """Seeds whose metric is defined otherwise stay rows of their own."""
    cells = (
        synthetic.CELLS[0],
        synthetic.Spec("a", 4, "simulate", 20.0, seed="0"),
        synthetic.Spec("b", 4, "simulate", 21.0, seed="1"),
    )
    run = synthetic.write_run(tmp_path / "run", cells)
    _, one, two = read_run(run).cells
    assert 1 == len(seed_lines([one, two], ["psnr"]))
    other = replace(two, definitions={**two.definitions, "psnr": "psnr@other"})
    assert [(one,), (other,)] == seed_lines([one, other], ["psnr"])
