"""Several models in one run: one section each, and never a ranking across them."""

import json
import re
from itertools import pairwise

import pytest

from tfq_bench_reports.charts.scatters import scatters
from tfq_bench_reports.renderer import HtmlRenderer
from tfq_bench_reports.view.reader import read_run
from tfq_bench_reports.view.verdict import verdict

RANDOM = json.dumps({"weights": "random"})
TRAINED = json.dumps({"weights": "hub"})


def model(synthetic, key, name, noise, options="{}"):
    """Full precision and one lowered cell of a model."""
    axes = {"model": name, "model_options": options, "reference": f"{key}fp"}
    return (
        synthetic.Spec(f"{key}fp", 32, "eager", **axes),
        synthetic.Spec(f"{key}cpu", 8, "cpu", noise, **axes),
    )


@pytest.fixture(scope="module")
def two(synthetic, tmp_path_factory):
    """A run of two architectures."""
    cells = (*model(synthetic, "a", "unet", 2.0), *model(synthetic, "b", "dit", 6.0, RANDOM))
    return synthetic.write_run(tmp_path_factory.mktemp("two") / "run", cells)


def test_each_model_has_its_own_tables(two):
    """No table has rows of two models."""
    models = read_run(two).models
    assert ["unet", "dit"] == [found.name for found in models]
    for found, keys in zip(models, ({"afp", "acpu"}, {"bfp", "bcpu"}), strict=True):
        for table in found.tables:
            assert {cell.key for row in table.rows for cell in row.cells} <= keys


def test_verdict_ranks_within_a_model_only(two):
    """Each model has its closest cell; none is called furthest away."""
    points = {point.title: point.text for point in verdict(read_run(two))}
    assert "rtn W8A8 · cpu comes closest" in points["unet: Closest to full precision"]
    assert "rtn W8A8 · cpu comes closest" in points["dit: Closest to full precision"]
    assert not any("furthest" in text for text in points.values())


def test_charts_hold_one_model_each(two):
    """Marks of two models never share axes."""
    figures = scatters(read_run(two), "r0-")
    assert {"unet", "dit"} == {figure.title.rpartition(" of ")[2] for figure in figures}
    for figure in figures:
        marks = re.findall(r'class="mark ([a-z-]+)"', figure.svg)
        assert ["full-precision", "lowered"] == marks


def test_options_of_a_model_are_shown(two, tmp_path):
    """Random weights stand beside the model's name, and only where there are options."""
    assert ["", "weights = random"] == [found.options for found in read_run(two).models]
    HtmlRenderer().render([two.path], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "Options of model dit: weights = random." in text
    assert "Model options: weights = random." in text
    assert "Options of model unet" not in text


def test_headings_and_ids_stay_sound(two, tmp_path):
    """A section per model skips no heading level and repeats no id."""
    HtmlRenderer().render([two.path], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    levels = [int(level) for level in re.findall(r"<h(\d)", text)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert 2 == levels.count(3)
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(set(ids)) == len(ids)


def test_options_tell_models_of_one_name_apart(synthetic, tmp_path):
    """Trained and random weights of one architecture are two models."""
    cells = (
        *model(synthetic, "a", "unet", 2.0, TRAINED),
        *model(synthetic, "b", "unet", 6.0, RANDOM),
    )
    run = synthetic.write_run(tmp_path / "run", cells)
    models = read_run(run).models
    assert ["unet (weights=hub)", "unet (weights=random)"] == [found.name for found in models]


def test_single_model_has_no_heading_of_its_own(html):
    """A run of one model is not cut into sections."""
    assert "nothing is ranked across models" not in html
