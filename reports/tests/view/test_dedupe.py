"""Cells that show the same stand together, others never do."""

import pytest

from tfq_bench_reports.view.dedupe import fingerprint, merged, point
from tfq_bench_reports.view.naming import Name, joined
from tfq_bench_reports.view.reader import read_run


@pytest.fixture(scope="module")
def cells(synthetic, tmp_path_factory):
    """W8A8 simulated and lowered with equal numbers, W4A8 the same numbers by chance."""
    specs = (
        synthetic.CELLS[0],
        synthetic.Spec("sim8", 8, "simulate", 2.0, draw=1),
        synthetic.Spec("cpu8", 8, "cpu", 2.0, draw=1),
        synthetic.Spec("sim4", 4, "simulate", 2.0, draw=1),
        synthetic.Spec("cuda8", 8, "cuda", 2.0, draw=2),
    )
    run = synthetic.write_run(tmp_path_factory.mktemp("run") / "run", specs)
    return {cell.key: cell for cell in read_run(run).cells}


def groups(cells, name):
    """Keys of the cells that a metric brings together."""
    found = merged(cells.values(), lambda cell: fingerprint(cell, name))
    return [tuple(cell.key for cell in some.cells) for some in found]


def test_only_backends_of_one_point_with_equal_numbers_are_merged(cells):
    """W4A8 has the same PSNR, cuda the same point: neither joins."""
    assert [("c0fp",), ("sim8", "cpu8"), ("sim4",), ("cuda8",)] == groups(cells, "psnr")


def test_name_lead_and_execution_of_merged_cells(cells):
    """The lowered cell speaks for both, under the name of both."""
    both = merged([cells["sim8"], cells["cpu8"]], lambda cell: fingerprint(cell, "psnr"))[0]
    assert "rtn W8A8 · simulate, cpu" == both.name
    assert ("cpu8", "both") == (both.lead.key, both.execution)


def test_an_interval_that_differs_keeps_cells_apart(cells):
    """Equal values of different spread are different facts."""
    one, other = cells["sim8"], cells["cuda8"]
    assert point(one) == point(other)
    assert fingerprint(one, "psnr") != fingerprint(other, "psnr")
    assert fingerprint(one, "no-such-metric") is None


@pytest.mark.parametrize(
    ("expected", "names"),
    [
        (
            "rtn W4A8 · simulate, cpu",
            [Name(method="rtn W4A8", backend="simulate"), Name(method="rtn W4A8", backend="cpu")],
        ),
        (
            "m · rtn W4A8 · cpu · seeds 1, 2",
            [
                Name(model="m", method="rtn W4A8", backend="cpu", seed="1"),
                Name(model="m", method="rtn W4A8", backend="cpu", seed="2"),
            ],
        ),
        (
            "rtn W4A8 · cpu (threads=1), cpu (threads=2)",
            [
                Name(method="rtn W4A8", backend="cpu", detail="threads=1"),
                Name(method="rtn W4A8", backend="cpu", detail="threads=2"),
            ],
        ),
        (
            "rtn W4A8 · simulate, cpu (ranges=mse)",
            [
                Name(method="rtn W4A8", backend="simulate", detail="ranges=mse"),
                Name(method="rtn W4A8", backend="cpu", detail="ranges=mse"),
            ],
        ),
    ],
)
def test_joined_names_say_what_differs(expected, names):
    """What is common is said once."""
    assert expected == joined(names)
