"""Metrics see a cell's images in order, the reference's beside them, and share what is costly."""

import numpy as np
import pytest

from tfq_bench.pipeline.cell import run_task
from tfq_bench.pipeline.evaluate import CellInputs
from tfq_bench.pipeline.tasks import tasks_of


@pytest.fixture
def sampled(project):
    """A project whose images are drawn, its full-precision cell and its quantized one."""
    found = project()
    for task in reversed(tasks_of(found.plan)):
        if task.stage == "sample" and found.plan.find(task.cell).reference is None:
            run_task(found.context, task, lambda *_: None)
    for task in tasks_of(found.plan):
        if task.stage in ("calibrate", "quantize", "lower", "sample"):
            run_task(found.context, task, lambda *_: None)
    full = next(p for p in found.plan.cells if p.reference is None)
    other = next(p for p in found.plan.cells if p.reference is not None)
    return found.context, full, other


def test_images_are_ordered_by_index(sampled):
    """Shards stand in the plan's order, whichever was drawn first."""
    context, full, _ = sampled
    shards = [CellInputs(context, full).images[start : start + 2] for start in (0, 2)]
    assert (4, 8, 8, 3) == CellInputs(context, full).images.shape
    assert not np.array_equal(*shards)


def test_reference_is_the_full_precision_cell(sampled):
    """A quantized cell is paired with full precision; that cell itself with nothing."""
    context, full, other = sampled
    mine, reference = CellInputs(context, other), CellInputs(context, full)
    assert full.cell.key == mine.reference_cell
    assert np.array_equal(reference.images, mine.reference_images)
    assert (None, None) == (reference.reference_images, reference.reference_cell)
    assert reference.pairing == mine.pairing
    assert reference.state is None
    assert mine.state.layers


def test_stages_that_a_cell_lacks_have_no_facts(sampled):
    """Full precision is not calibrated; what it did run is told."""
    context, full, _ = sampled
    assert {} == CellInputs(context, full).facts("calibrate")
    assert "full-precision" == CellInputs(context, full).facts("lower")["execution"]


def test_features_are_computed_once_per_set_of_images(sampled):
    """What one metric computed of the reference serves every cell that is compared with it."""
    context, full, other = sampled
    calls = []

    def compute():
        calls.append(1)
        return np.arange(3.0)

    first = CellInputs(context, full).cached("f", compute, of="cell")
    again = CellInputs(context, other).cached("f", compute, of="reference")
    assert [0.0, 1.0, 2.0] == first.tolist() == again.tolist()
    assert 1 == len(calls)
    CellInputs(context, other).cached("f", compute, of="cell")
    assert 2 == len(calls)
