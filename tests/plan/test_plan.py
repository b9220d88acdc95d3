"""A plan says what will run, as JSON too, finds its cells by key, and places them by their axes."""

import json

import pytest

from tfq_bench.errors import SuiteError
from tfq_bench.pipeline.tasks import tasks_of
from tfq_bench.plan.plan import Plan, cell_axes
from tfq_bench.types import Cell, Component, Scheme

SKIPPED = '[[backend]]\nname = "gap"\n'
GAP = """
from tfq_bench import api

@api.hookimpl
def tfq_backends():
    yield api.BackendProvider(name="gap", summary="", factory="a:B", wbits=(2,), abits=(8,))
"""
GMAC = 0.0009  # of the model `tiny`


def cost(plan):
    """Expected multiply-accumulates of each stage, in 1e9."""
    found = {}
    for task in tasks_of(plan):
        found[task.stage] = found.get(task.stage, 0) + task.weight
    return found


def test_json_is_the_whole_plan(project):
    """Everything that a script needs to follow a run is in the JSON, and it survives a file."""
    plan = project(wbits=(8,), images=5, shard=2, metrics=("bits", "timing")).plan
    found = plan.to_json()
    assert found == json.loads(json.dumps(found, allow_nan=False))
    assert (2, plan.id) == (found["schema"], found["id"])
    assert {"name": "tiny", "summary": "", "device": "cpu", "threads": 1} == found["suite"]
    assert [[0, 2], [2, 4], [4, 5]] == found["shards"]
    # The host's own checks are in every plan, last.
    assert ["bits", "timing", "sanity"] == [metric["name"] for metric in found["metrics"]]
    for name in ("sampling", "calibration", "timing"):
        assert dict(getattr(plan.spec, name)) == found[name]
    for planned, cell in zip(plan.cells, found["cells"], strict=True):
        assert (planned.cell.key, planned.cell.label) == (cell["key"], cell["label"])
        assert ("planned", None) == (cell["status"], cell["reason"])
        assert (3, 3) == (len(cell["keys"]["sample"]), len(cell["keys"]["evaluate"]))
        assert planned.keys.quantize == cell["keys"]["quantize"]
    assert [None, plan.cells[0].cell.key] == [cell["reference"] for cell in found["cells"]]
    assert [True, False] == [cell["keys"]["calibrate"] is None for cell in found["cells"]]


def test_skipped_cells_are_listed_and_cost_nothing(project, plugin_host):
    """A skip is in the JSON with its reason; no task, and no cost, is made of it."""
    full = project("without", wbits=(8,)).plan
    plugin_host.install("gap", GAP, distribution="gap-dist")
    plan = project("with", wbits=(8,), more=SKIPPED).plan
    skipped = plan.to_json()["cells"][-1]
    assert "skipped" == skipped["status"]
    assert "backend 'gap' has weights of 2 bits, not 8" == skipped["reason"]
    assert skipped["key"] not in {planned.cell.key for planned in plan.runnable()}
    assert tasks_of(full) == tasks_of(plan)
    assert full.id != plan.id


def test_cost_counts_multiply_accumulates(project):
    """Images times steps for sampling; calibration once, however many widths share it."""
    one = cost(project("one", wbits=(8,), images=4, steps=3).plan)
    three = cost(project("three", wbits=(8, 6, 4), images=4, steps=3).plan)
    assert GMAC * 2 * 4 * 3 == pytest.approx(one["sample"])
    assert GMAC * 4 * 4 * 3 == pytest.approx(three["sample"])
    assert GMAC * 2 * 3 == pytest.approx(one["calibrate"]) == pytest.approx(three["calibrate"])


def test_equal_plans_have_equal_ids(project):
    """The id is of the work: the same suite has it again, another metric moves it."""
    assert project("one").plan.id == project("two").plan.id
    assert project("one").plan.id != project("three", metrics=("bits",)).plan.id


def test_cells_are_found_by_the_head_of_their_key(project):
    """As much of a key as makes it unique is enough."""
    plan = project().plan
    for planned in plan.cells:
        assert planned is plan.find(planned.cell.key)
        assert planned is plan.find(planned.cell.key[:12])


@pytest.mark.parametrize(
    ("key", "sentence"), [("", "several cells start with ''"), ("xyz", "no cell starts with 'xyz'")]
)
def test_a_key_that_names_no_cell(project, key, sentence):
    """The message lists what there is."""
    plan: Plan = project().plan
    with pytest.raises(SuiteError) as caught:
        plan.find(key)
    assert sentence in str(caught.value)
    assert all(planned.cell.key in str(caught.value) for planned in plan.cells)


def test_axes_are_text():
    """Every axis of a cell, options as canonical JSON, as records and comparisons use them."""
    cell = Cell(
        key="k",
        model=Component(name="tiny", options={"weights_seed": 0}),
        quantizer=Component(name="rtn", options={"weights": "mse", "deep": True}),
        scheme=Scheme(wbits=4, abits=8, policy="paper"),
        backend=Component(name="cpu"),
        seed=3,
    )
    assert {
        "model": "tiny",
        "quantizer": "rtn",
        "scheme": "W4A8",
        "wbits": "4",
        "abits": "8",
        "policy": "paper",
        "backend": "cpu",
        "seed": "3",
        "model_options": '{"weights_seed":0}',
        "quantizer_options": '{"deep":true,"weights":"mse"}',
        "backend_options": "{}",
    } == cell_axes(cell)
