"""`tfq-bench plan` shows what a run would do and does none of it."""

import json

import pytest

from tfq_bench.cli import main

EXCLUDE = '[[exclude]]\nscheme = "W4A8"\nreason = "known to fail"\n'


@pytest.fixture
def plan(tiny_suite, tmp_path, capsys):
    """A function that plans a tiny suite and returns what it prints."""

    def show(*arguments, **options):
        suite = str(tiny_suite(**options))
        assert 0 == main(["plan", suite, "--run", str(tmp_path / "run"), *arguments])
        return capsys.readouterr().out

    return show


def test_cells_and_cost(plan, tmp_path):
    """Every cell is listed, with what is left out and why; nothing is written."""
    text = plan(wbits=(8, 4), more=EXCLUDE)
    assert "tiny / rtn W8A8 / simulate" in text
    assert "excluded: scheme = W4A8: known to fail" in text
    assert "tiny / rtn W4A8" not in text
    assert "0 of 12 tasks are finished" in text
    assert not (tmp_path / "run").exists()


def test_values_of_the_command_line(plan, tiny_suite, tmp_path, capsys):
    """They are planned with, and `run` stores them in its folder, where `cell` finds them."""
    assert "8 images a cell" in plan("--set", "sampling.images=8", "--set", "sampling.shard=8")
    suite, run = str(tiny_suite()), tmp_path / "run"
    given = ["--run", str(run), "--set", "sampling.images=6"]
    assert 0 == main(["run", suite, "--no-report", *given])
    assert "images = 6" in (run / "suite.toml").read_text()
    assert "6 images a cell" in capsys.readouterr().out
    key = json.loads((run / "plan.json").read_text())["cells"][0]["key"]
    assert 5 == main(["cell", str(run), key, "--stage", "lower"])
    assert 2 == main(["plan", suite, "--set", "sampling.images"])
    assert "--set expects seeds=VALUE" in capsys.readouterr().err


def test_cells_of_the_command_line(plan, capsys):
    """Those with a text in their label, and full precision; in any case of letters."""
    text = plan("-k", "RTN w4a8", wbits=(8, 4))
    assert ["tiny / fp FP / eager", "tiny / rtn W4A8 / simulate"] == [
        line[18:].partition("  ")[0] for line in text.splitlines() if " / " in line
    ]
    assert 2 == len([line for line in plan("-k", "fp", "-k", "w8").splitlines() if " / " in line])
    assert 17 == json.loads(plan("--json", wbits=(8, 4)))["tasks"]["all"]
    assert 12 == json.loads(plan("--json", "-k", "w4", wbits=(8, 4)))["tasks"]["all"]


def test_finished_work_is_found(plan, tiny_suite, tmp_path, capsys):
    """After a run nothing is left to do."""
    suite = str(tiny_suite())
    assert 0 == main(["run", suite, "--run", str(tmp_path / "run"), "--no-report"])
    capsys.readouterr()
    found = json.loads(plan("--json"))
    assert 0 == found["tasks"]["unfinished"] == found["cost"]["gmac_unfinished"]
    assert found["cost"]["gmac"] > 0


def test_json_counts_the_work(plan):
    """One calibration call set, and per cell images times steps."""
    found = json.loads(plan("--json", metrics=("bits",), wbits=(8,), images=4, steps=3))
    assert ["planned", "planned"] == [cell["status"] for cell in found["cells"]]
    assert found["tasks"]["all"] == found["tasks"]["unfinished"] == 11
    double = json.loads(plan("--json", metrics=("bits",), images=8, shard=4, steps=3))
    more = double["cost"]["gmac"] - found["cost"]["gmac"]
    assert 0.0009 * 2 * 4 * 3 == pytest.approx(more)


def test_nothing_to_run(tiny_suite, capsys):
    """A suite whose cells are all excluded exits with 5."""
    suite = tiny_suite(more='[[exclude]]\nmodel = "*"\nreason = "none"\n')
    assert 5 == main(["plan", str(suite)])
    assert "has no cell to run" in capsys.readouterr().err
