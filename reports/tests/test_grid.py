"""The image grid: rows by rule, differences amplified, budget kept."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tfq_bench_reports.grid import chosen_rows, grids
from tfq_bench_reports.view import read_run


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
    """A failed cell has no column."""
    assert "Full precision" == grid.columns[0]
    assert 6 == len(grid.columns)
    assert "lowest PSNR to full precision of rtn W4A8 · simulate" in grid.caption


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
    size = sum(len(p.uri) + len(p.difference) for p in first.pictures)
    (small,) = grids(run, read_run(run), budget=size + 10)
    assert (first,) == small.rows
    assert "5 more rows are left out" in small.caption
