"""Who works on a cell plans it again, and no more than that."""

import importlib
import sys

import pytest

from tfq_bench.errors import SuiteError
from tfq_bench.host.plugins import discover
from tfq_bench.host.table import PluginTable
from tfq_bench.pipeline.replan import plan_again
from tfq_bench.pipeline.tasks import tasks_of_cell
from tfq_bench.plan.plan import Plan
from tfq_bench.types.tasks import STAGES

METRICS = ("paired", "timing", "bits")


@pytest.mark.parametrize("stage", [None, *STAGES])
def test_a_part_is_what_the_whole_has_there(project, stage):
    """Same keys, tasks and names of the cell, whatever stage is asked for."""
    made = project(metrics=METRICS, wbits=(8, 4))
    for planned in made.plan.cells:
        part = plan_again(made.folder, made.table, planned.cell.key[:8], stage)
        assert made.plan.id == part.id
        found = part.find(planned.cell.key)
        assert planned.cell == found.cell
        expected, tasks = (
            [t for t in tasks_of_cell(plan, cell) if stage is None or t.stage == stage]
            for plan, cell in ((made.plan, planned), (part, found))
        )
        assert expected == tasks


def test_only_metrics_that_count_are_made(project, monkeypatch):
    """A worker that quantizes makes no metric but those that decide whether a cell is timed."""
    made = project(metrics=METRICS)
    create, names = PluginTable.create, []

    def watched(table, provider, **options):
        names.append(provider.name)
        return create(table, provider, **options)

    monkeypatch.setattr(PluginTable, "create", watched)
    key = made.plan.cells[-1].cell.key
    plan_again(made.folder, made.table, key, "quantize")
    assert "timing" in names
    assert not {"paired", "bits"} & set(names)
    plan_again(made.folder, made.table, key, "evaluate")
    assert {"paired", "bits"} <= set(names)


PARTS = """
from tfq_bench import api

@api.hookimpl
def tfq_quantizers():
    for name in ("one", "two"):
        yield api.QuantizerProvider(name=name, summary="", factory=f"{name}_method:Mine")

@api.hookimpl
def tfq_metrics():
    yield api.MetricProvider(name="mine", summary="", factory="mine_metric:Mine")
"""
METHOD = "from tfq_bench.quant import RoundToNearest as Mine\n"
METRIC = "from tfq_bench.metrics.bits import Bits as Mine\n"
MORE = """
[[quantizer]]
name = "one"
wbits = 8
abits = 8

[[quantizer]]
name = "two"
wbits = 8
abits = 8
"""


@pytest.mark.parametrize(
    ("edited", "stages"),
    [("one_method", STAGES), ("two_method", ()), ("mine_metric", ("evaluate",))],
)
def test_what_takes_no_part_stops_nobody(
    project, plugin_host, tmp_path, monkeypatch, edited, stages
):
    """Code that changed is refused by whoever would use it, with what moved, and by nobody else."""
    for name in ("one_method", "two_method", "mine_metric"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text(METRIC if "metric" in name else METHOD)
    monkeypatch.syspath_prepend(str(tmp_path))
    plugin_host.install("parts", PARTS, distribution="parts-dist")
    made = project(metrics=("mine",), more=MORE)
    key = next(p.cell.key for p in made.plan.cells if p.cell.quantizer.name == "one")
    with (tmp_path / f"{edited}.py").open("a") as file:
        file.write("# edited\n")
    importlib.invalidate_caches()
    for stage in STAGES:
        if stage in stages:
            with pytest.raises(SuiteError, match=rf"\(code of {edited} changed\)"):
                plan_again(made.folder, discover(), key, stage)
        else:
            assert isinstance(plan_again(made.folder, discover(), key, stage), Plan)


def test_a_cell_that_can_run_no_more(project, monkeypatch):
    """A backend that has gone since is told as when the whole suite is planned."""
    made = project()
    planned = made.plan.cells[-1]
    monkeypatch.setattr("tfq_bench.plan.model_cells.unsupported", lambda *_: "no such unit here")
    with pytest.raises(SuiteError, match="'tfq-bench run' plans it anew"):
        plan_again(made.folder, made.table, planned.cell.key, "lower")


def test_more_images_are_another_plan(project):
    """The keys of a cell know no number of images, those of its shards do."""
    made = project()
    suite = made.folder.path / "suite.toml"
    suite.write_text(suite.read_text().replace("images = 4", "images = 6"))
    with pytest.raises(SuiteError, match="gives plan"):
        plan_again(made.folder, made.table, made.plan.cells[-1].cell.key, "sample")
