"""A plan is carried out: facts become records, failures stay with their cells."""

import pytest

from tfq_bench.errors import StoreError
from tfq_bench.executors.inline import InlineExecutor
from tfq_bench.pipeline.run import execute_plan, execute_task
from tfq_bench.pipeline.tasks import tasks_of

FULL, W8, W4 = "tiny / fp FP / eager", "tiny / rtn W8A8 / simulate", "tiny / rtn W4A8 / simulate"


class Watcher:
    """Notes what it is told."""

    def __init__(self):
        self.todo, self.finished, self.ended = None, None, []

    def begin(self, tasks, finished):
        self.todo, self.finished = len(tasks), finished

    def start(self, task):
        pass

    def progress(self, task, fraction, text):
        assert 0 <= fraction <= 1

    def done(self, outcome):
        self.ended.append(outcome)


def carry(found, watcher=None, environment="env"):
    """Labels of the cells that failed."""
    failed = execute_plan(
        found.plan,
        found.table,
        found.folder,
        InlineExecutor(found.folder.path),
        environment=environment,
        watcher=watcher or Watcher(),
    )
    return [planned.cell.label for planned in failed]


def break_stage(monkeypatch, stage, error, label=None):
    """Makes a stage raise, of one cell or of all."""
    from tfq_bench.pipeline import cell

    original = cell._STAGES[stage]

    def broken(context, planned, task, progress):
        if label in (None, planned.cell.label):
            raise error
        original(context, planned, task, progress)

    monkeypatch.setitem(cell._STAGES, stage, broken)


def failures(found):
    """Failed records by label."""
    return {r.label: r for r in found.folder.records() if r.status == "failed"}


def test_every_cell_has_its_records(project):
    """A run without trouble: every task ends well, every number is on record."""
    found, watcher = project(wbits=(8, 4)), Watcher()
    assert [] == carry(found, watcher)
    records = found.folder.records()
    assert {(FULL, "ok"), (W8, "ok"), (W4, "ok")} == {(r.label, r.status) for r in records}
    assert {"env"} == {r.environment for r in records}
    assert (len(tasks_of(found.plan)), 0) == (watcher.todo, watcher.finished)


def test_records_are_made_of_artefacts_alone(project):
    """A run killed before it wrote its records writes the same ones afterwards."""
    found, watcher = project(), Watcher()
    carry(found)
    expected = found.folder.records()
    found.folder.records_path.unlink()
    carry(found, watcher)
    assert expected == found.folder.records()
    assert (0, len(tasks_of(found.plan))) == (watcher.todo, watcher.finished)


def test_nothing_is_appended_twice(project):
    """The file of records does not grow when a finished run is run again."""
    found = project()
    carry(found)
    before = found.folder.records_path.read_bytes()
    carry(found)
    assert before == found.folder.records_path.read_bytes()


def test_a_failed_cell_leaves_the_others_alone(project, monkeypatch):
    """Its record has stage, reason, log and the command that repeats it."""
    found = project(wbits=(8, 4))
    break_stage(monkeypatch, "quantize", ValueError("boom"), label=W8)
    assert [W8] == carry(found)
    record = failures(found)[W8]
    assert ("quantize", "ValueError: boom") == (record.stage, record.reason)
    assert f"tfq-bench cell {found.folder.path} {record.cell}" == record.reproduce
    assert "ValueError: boom" in (found.folder.path / record.log).read_text()
    assert {W4, FULL} == {r.label for r in found.folder.records() if r.status == "ok"}


def test_shared_work_fails_every_cell_that_needs_it(project, monkeypatch):
    """One calibration for two widths: both name it, and the log in which it is told."""
    found = project(wbits=(8, 4))
    break_stage(monkeypatch, "calibrate", ValueError("boom"))
    assert [W8, W4] == carry(found)
    for label in (W8, W4):
        record = failures(found)[label]
        assert ("calibrate", "ValueError: boom") == (record.stage, record.reason)
        assert "boom" in (found.folder.path / record.log).read_text()


def test_a_reference_that_fails_is_named(project, monkeypatch):
    """What could not be compared says with what, and where that failed first."""
    found = project()
    break_stage(monkeypatch, "lower", ValueError("boom"), label=FULL)
    assert [FULL, W8] == carry(found)
    record = failures(found)[W8]
    assert "lower" == record.stage
    assert f"it needs '{FULL}', which failed at lower: ValueError: boom" == record.reason
    assert failures(found)[FULL].cell in record.reproduce


def test_a_cell_that_recovers_is_no_longer_failed(project, monkeypatch):
    """The same command tries again, and what it finds replaces the failure."""
    found = project()
    with monkeypatch.context() as patch:
        break_stage(patch, "sample", ValueError("boom"), label=W8)
        carry(found)
    assert [W8] == list(failures(found))
    assert [] == carry(found)
    assert {} == failures(found)


def test_a_plugin_that_exits_only_fails_its_cell(project, monkeypatch):
    """`sys.exit(0)` in a plugin must not end a run as if it had succeeded."""
    found = project()
    break_stage(monkeypatch, "quantize", SystemExit(0), label=W8)
    assert [W8] == carry(found)
    assert "SystemExit: 0" == failures(found)[W8].reason


def test_a_damaged_run_folder_stops_the_run(project, monkeypatch):
    """There is no use in trying the other cells; the log says where it happened."""
    found = project()
    break_stage(monkeypatch, "lower", StoreError("disk gone"))
    with pytest.raises(StoreError, match="disk gone"):
        carry(found)
    assert {} == failures(found)


def test_perform_turns_errors_into_reasons(project, monkeypatch):
    """A task that fails is an outcome, not an exception."""
    found = project()
    task = tasks_of(found.plan)[0]
    break_stage(monkeypatch, task.stage, ValueError("boom"))
    outcome = execute_task(found.context, task, found.folder, lambda *_: None)
    assert (task, "ValueError: boom", None) == (outcome.task, outcome.reason, outcome.blocked)


def test_where_a_number_was_measured_stays_on_record(project):
    """A later plan on another machine does not claim its times; lost records claim nothing."""
    first = project(wbits=(8,))
    a, b = (
        first.folder.add_environment({"hardware": {"memory_bytes": 2**size}}) for size in (34, 35)
    )
    carry(first, environment=a)
    second = project(wbits=(8, 4))
    carry(second, environment=b)
    assert {(FULL, a), (W8, a), (W4, b)} == {
        (r.label, r.environment) for r in second.folder.records()
    }
    second.folder.records_path.unlink()
    watcher = Watcher()
    carry(second, watcher, environment=b)
    assert 0 == watcher.todo
    assert {"unknown"} == {r.environment for r in second.folder.records()}
