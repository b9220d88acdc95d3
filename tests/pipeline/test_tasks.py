"""A plan becomes tasks: shared work once, dependencies first, finished work left out."""

from tfq_bench.pipeline.tasks import tasks_of, tasks_of_cell, unfinished


def test_shared_calibration_appears_once(project):
    """Two widths of one method are calibrated once; every other stage is each cell's own."""
    tasks = tasks_of(project(wbits=(8, 4)).plan)
    count = {stage: sum(task.stage == stage for task in tasks) for stage in ("calibrate", "sample")}
    assert {"calibrate": 1, "sample": 3 * 2} == count
    assert len(tasks) == len({task.id for task in tasks})


def test_dependencies_come_first(project):
    """Every task stands behind what it needs, and nothing is needed that is not planned."""
    seen = set()
    for task in tasks_of(project(wbits=(8, 4)).plan):
        assert set(task.needs) <= seen
        seen.add(task.id)


def test_evaluation_waits_for_the_reference_images(project):
    """A quantized cell is compared with full precision, whose images must be there before."""
    plan = project().plan
    full = next(p for p in plan.cells if p.reference is None)
    other = next(p for p in plan.cells if p.reference == full.cell.key)
    evaluate = tasks_of_cell(plan, other)[-1]
    assert {f"sample-{key}" for key in full.keys.sample} <= set(evaluate.needs)


def test_timings_are_exclusive_and_nothing_else_is(project):
    """Only the measure stage asks for a quiet machine."""
    tasks = tasks_of(project().plan)
    assert {"measure"} == {task.stage for task in tasks if task.exclusive}


def test_a_task_is_unfinished_until_its_last_artefact_exists(project):
    """One metric of three does not finish an evaluation."""
    found = project()
    tasks = tasks_of(found.plan)
    evaluate = next(task for task in tasks if task.stage == "evaluate")
    for number, key in enumerate(evaluate.outputs):
        assert evaluate in unfinished(tasks, found.folder.artefacts), number
        with found.folder.artefacts.create("evaluate", key):
            pass
    assert evaluate not in unfinished(tasks, found.folder.artefacts)
