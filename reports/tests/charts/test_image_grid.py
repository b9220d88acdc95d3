"""The image grid: rows by rule, differences amplified, budget kept."""

import base64
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from tfq_bench_reports.charts.image_grid import chosen_rows, grids
from tfq_bench_reports.view.reader import read_run


def pixels(uri):
    """The decoded image of a data URI."""
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)))


def test_rows_follow_the_rule():
    """Two worst, the median, the first three; no image twice."""
    psnr = np.array([30.0, 20.0, 25.0, 40.0, 10.0])
    assert [
        (4, "worst"),
        (1, "second worst"),
        (2, "median"),
        (0, "by index"),
    ] == chosen_rows(psnr)


@pytest.fixture(scope="module")
def grid(run):
    """The grid of the synthetic run."""
    (found,) = grids(run, read_run(run), budget=4_000_000)
    return found


def test_columns_are_full_precision_and_the_cells_with_images(grid):
    """A failed cell has no column; cells of identical images share one."""
    expected = (
        "Full precision",
        "rtn W8A8 · simulate, cpu",
        "rtn W6A8 · simulate",
        "rtn W6A8 · cpu",
        "rtn W4A8 · simulate",
    )
    assert expected == grid.columns
    assert all(len(expected) == len(row.pictures) for row in grid.rows)
    assert "lowest PSNR to full precision of rtn W4A8 · simulate" in grid.caption


def test_cells_without_a_column_are_named_with_the_reason(grid):
    """How many are shown, which are not, and why."""
    assert "5 of 7 quantized cells are shown in 4 columns" in grid.shown
    assert {
        "no images: failed at stage lower": ("rtn W4A8 · cpu",),
        "no images: skipped": ("rtn W8A8 · cuda",),
    } == {entry.reason: entry.names for entry in grid.left_out}


def test_of_several_seeds_the_first_is_shown(synthetic, tmp_path):
    """Seeds of one cell do not crowd out other cells; the caption says so."""
    cells = (
        synthetic.CELLS[0],
        synthetic.Spec("s1", 4, "simulate", 20.0, seed="0"),
        synthetic.Spec("s2", 4, "simulate", 21.0, seed="1"),
    )
    run = synthetic.write_run(tmp_path / "run", cells)
    (grid,) = grids(run, read_run(run), budget=4_000_000)
    assert ("Full precision · seed 0", "rtn W4A8 · simulate · seed 0") == grid.columns
    (entry,) = grid.left_out
    assert ("rtn W4A8 · simulate · seed 1",) == entry.names
    assert "seed 0 of the same cell is shown" == entry.reason


def test_images_of_another_size_are_left_out(synthetic, tmp_path):
    """Pixels that do not pair are not laid side by side."""
    run = synthetic.write_run(tmp_path / "run", synthetic.CELLS[:3])
    other = synthetic.write_run(tmp_path / "other", synthetic.CELLS[:3], side=16)
    place = run.artefacts.path("sample", "sc1sim8")
    shutil.rmtree(place)
    shutil.copytree(other.artefacts.path("sample", "sc1sim8"), place)
    (grid,) = grids(run, read_run(run), budget=4_000_000)
    assert ("Full precision", "rtn W8A8 · cpu") == grid.columns
    (entry,) = grid.left_out
    assert "64 images of 16 x 16 px, but Full precision has 64 images of 32 x 32 px" == entry.reason


def test_columns_that_do_not_fit_are_left_out_and_named(run, grid):
    """A row is cut before the grid is given up."""
    first = grid.rows[0].pictures
    (small,) = grids(run, read_run(run), budget=sum(picture.size for picture in first[:3]) + 10)
    assert grid.columns[:3] == small.columns
    assert 3 == len(small.rows[0].pictures)
    reasons = {entry.reason: entry.names for entry in small.left_out}
    assert ("rtn W6A8 · cpu", "rtn W4A8 · simulate") == reasons["left out to keep the file small"]


def test_pictures_are_the_sampled_pixels(run, grid):
    """What is shown is what was sampled, and the difference is the stated one."""
    row = grid.rows[0]
    full, cell = run.images("c0fp")[row.index], run.images("c5sim4")[row.index]
    np.testing.assert_array_equal(full, pixels(row.pictures[0].uri))
    np.testing.assert_array_equal(cell, pixels(row.pictures[-1].uri))
    expected = np.abs(full.astype(int) - cell.astype(int)).mean(axis=-1) * grid.gain
    shown = pixels(row.pictures[-1].difference)
    np.testing.assert_allclose(np.minimum(expected, 255), shown, atol=0.51)


def test_alternative_text_names_cell_and_index(grid):
    """A reader who sees no image learns which one it is and how far off."""
    row = grid.rows[0]
    assert f"Image {row.index} of rtn W4A8 · simulate, PSNR" in row.pictures[-1].alt


def test_rows_beyond_the_budget_are_left_out_and_counted(run, grid):
    """The most telling rows stay."""
    first = grid.rows[0]
    size = sum(picture.size for picture in first.pictures)
    (small,) = grids(run, read_run(run), budget=size + 10)
    assert (first,) == small.rows
    assert "5 more rows are left out" in small.caption
