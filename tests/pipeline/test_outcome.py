"""Records are made from artefacts alone."""

from tfq_bench.pipeline.cell import run_task
from tfq_bench.pipeline.outcome import failure_record, metric_records, skip_record
from tfq_bench.pipeline.tasks import tasks_of


def test_one_record_per_number_of_the_finished_metrics(project):
    """What is not evaluated yet has no record; what is has its definition's id."""
    found = project(metrics=("bits",))
    full = next(p for p in found.plan.cells if p.reference is None)
    assert [] == metric_records(found.plan, full, found.folder.artefacts, "env")
    for task in tasks_of(found.plan):
        run_task(found.context, task, lambda *_: None)
    records = metric_records(found.plan, full, found.folder.artefacts, "env")
    numbers = [record for record in records if record.metric is not None]
    assert "mean-weight-bits" in {record.metric.definition.name for record in numbers}
    assert 1 == len(records) - len(numbers)  # `sanity`, which every run has, gives no number
    for record in numbers:
        assert (full.cell.key, "ok", "env") == (record.cell, record.status, record.environment)
        assert record.definition.startswith(f"{record.metric.definition.name}@")


def test_failure_and_skip_say_why(project):
    """Neither carries a number."""
    plan = project().plan
    planned = plan.cells[0]
    failed = failure_record(
        plan, planned, "e", stage="lower", reason="r", reproduce="again", log="logs/x.log"
    )
    assert ("failed", "lower", "r", "again", "logs/x.log", None) == (
        failed.status,
        failed.stage,
        failed.reason,
        failed.reproduce,
        failed.log,
        failed.metric,
    )
    assert "skipped" == skip_record(plan, planned, "e").status
