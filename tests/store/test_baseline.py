"""A baseline file is complete, stable, and refuses to be edited quietly."""

import json
import math
from importlib.resources import files

import jsonschema
import pytest

from tfq_bench.errors import SuiteError
from tfq_bench.store.baseline import baseline_of, load_baseline, run_facts, save_baseline
from tfq_bench.store.records import append
from tfq_bench.store.run import RunFolder
from tfq_bench.store.seals import seal

SCHEMA = json.loads((files("tfq_bench") / "schemas" / "baseline.schema.json").read_text())


@pytest.fixture
def complete(tmp_path, record, plan):
    """A run of one finished cell with two metrics."""
    run = RunFolder.prepare(tmp_path / "run")
    run.write("", plan("c0", metrics=("fd-tiny", "kd")))
    append(run.records_path, [record(replicates=(1.0, 2.0)), record(name="kd", value=0.1)])
    return run


def test_a_baseline_reads_back_what_the_run_had(complete, tmp_path):
    """Values, intervals, replicates, pairing and definitions; the file fits its schema."""
    path = tmp_path / "baseline.json"
    save_baseline(baseline_of(complete), path)
    jsonschema.validate(json.loads(path.read_text()), SCHEMA)
    (found,), (cell,) = load_baseline(path).cells, run_facts(complete)
    assert (cell.label, cell.axes, set(cell.values)) == (
        found.label,
        found.axes,
        set(found.values),
    )
    mine, other = cell.values["fd-tiny"], found.values["fd-tiny"]
    assert mine.definition == other.definition
    for field in ("definition", "value", "n", "interval", "replicates", "pairing"):
        assert getattr(mine.metric, field) == getattr(other.metric, field)


def test_the_same_numbers_give_the_same_file(complete, tmp_path, record, plan):
    """Whatever the order of the records."""
    other = RunFolder.prepare(tmp_path / "other")
    other.write("", plan("c0", metrics=("kd", "fd-tiny")))
    append(other.records_path, [record(name="kd", value=0.1), record(replicates=(1.0, 2.0))])
    for name, run in (("a", complete), ("b", other)):
        save_baseline(baseline_of(run), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_hardware_is_described_and_fingerprinted(complete, tmp_path, record, plan):
    """So that times can be gated, and a reader knows where they come from."""
    run = RunFolder.prepare(tmp_path / "other")
    run.write("", plan("c0"))
    hardware = {"cpu": "Xeon", "usable_cores": 4, "memory_bytes": 2**34, "gpus": []}
    name = run.add_environment({"hardware": hardware})
    line = record()
    append(run.records_path, [type(line)(**{**_fields(line), "environment": name})])
    save_baseline(baseline_of(run), tmp_path / "b")
    found = load_baseline(tmp_path / "b")
    assert "Xeon, 4 cores, no GPU" == found.environments[name]["description"]
    measured = found.cells[0].values["fd-tiny"]
    assert measured.hardware == run_facts(run)[0].values["fd-tiny"].hardware is not None


def _fields(record):
    return {name: getattr(record, name) for name in record.__slots__}


@pytest.mark.parametrize(
    ("value", "status", "words"),
    [(None, "failed", "failed: no memory"), (math.nan, "ok", "fd-tiny: nan")],
)
def test_bad_runs_are_refused_unless_allowed(run, record, value, status, words):
    """A partial run would become the measure of all later ones."""
    append(run.records_path, [record("c1"), record("c0", value, status=status, reason="no memory")])
    with pytest.raises(SuiteError, match=words):
        baseline_of(run)
    (cell,) = baseline_of(run, allow_incomplete=True).cells
    assert "tiny / rtn W4A8 / c1" == cell.label


def test_an_unfinished_run_is_refused(run, record):
    """A planned cell without results is not complete."""
    append(run.records_path, [record("c0")])
    with pytest.raises(SuiteError, match=r"c1 \(unfinished: it has no results yet\)"):
        baseline_of(run)


def test_a_run_without_numbers_is_refused(run):
    """Even when incomplete ones are allowed."""
    with pytest.raises(SuiteError, match="no numbers to save"):
        baseline_of(run, allow_incomplete=True)


def _sealed(text):
    content = json.loads(text)
    return json.dumps(content | {"checksum": seal(content)})


def test_the_layout_of_the_file_does_not_count(complete, tmp_path):
    """Formatters of a repository may touch it; no number is another one then."""
    path = tmp_path / "baseline.json"
    save_baseline(baseline_of(complete), path)
    cells = load_baseline(path).cells
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4, sort_keys=True) + "\r\n")
    assert cells == load_baseline(path).cells


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"images": 4', '"images": 5'), "expected the checksum"),
        (lambda text: text.replace('"value": 0.1', '"value": 0.2'), "expected the checksum"),
        (lambda text: _sealed(text.replace('"images": 4', '"images": 5')), "now has the id"),
        (lambda text: text.replace('"schema": 2', '"schema": 1'), "expected schema 2, found 1"),
        (lambda text: _sealed(text.replace('"axes"', '"axis"')), "expected the field 'axes'"),
        (lambda text: _sealed(text.replace('"n": 4', '"n": 1.5')), "a whole number.* found 1.5"),
        (lambda text: text[:-20], "is not JSON"),
        (lambda text: "[]", "found None"),
    ],
)
def test_edited_files_are_refused(complete, tmp_path, change, message):
    """With what was expected and found, never a traceback."""
    path = tmp_path / "baseline.json"
    save_baseline(baseline_of(complete), path)
    path.write_text(change(path.read_text()))
    with pytest.raises(SuiteError, match=message):
        load_baseline(path)


def test_a_missing_file_is_told(tmp_path):
    """With the command that makes one."""
    with pytest.raises(SuiteError, match="tfq-bench baseline save"):
        load_baseline(tmp_path / "none.json")
