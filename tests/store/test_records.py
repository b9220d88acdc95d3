"""Records survive torn lines and full disks, and mean the same when read back."""

import errno
import json
import logging
import math
import os
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files

import jsonschema
import pytest

from tfq_bench.errors import StoreError
from tfq_bench.keys import definition_id
from tfq_bench.store.records import append, read, record_from_json, record_to_json
from tfq_bench.types import MeasuredBy

SCHEMA = json.loads((files("tfq_bench") / "schemas" / "record.schema.json").read_text())


@pytest.fixture
def path(tmp_path):
    """Where the records of a test go."""
    return tmp_path / "records.jsonl"


@pytest.mark.parametrize("value", [1.5, None])
def test_a_record_reads_back_as_it_was(path, record, value):
    """Every field comes back, also NaN inside a curve, and the line fits the schema."""
    written = record(value=value, replicates=(1.0, 2.0))
    append(path, [written])
    (found,) = read(path)
    assert record_to_json(written) == record_to_json(found)
    jsonschema.validate(json.loads(path.read_text()), SCHEMA)


def test_numbers_that_json_cannot_say_are_strings(path, record):
    """The file is strict JSON; NaN and infinities come back as floats."""
    append(path, [record(value=math.nan), record("c1", value=-math.inf)])
    lines = [json.loads(line, parse_constant=pytest.fail) for line in path.open()]
    assert ["NaN", "-Infinity"] == [line["metric"]["value"] for line in lines]
    for line in lines:
        jsonschema.validate(line, SCHEMA)
    nan, infinity = (found.metric.value for found in read(path))
    assert math.isnan(nan)
    assert -math.inf == infinity


def test_the_latest_record_counts_and_order_is_by_label(path, record):
    """Records may arrive in any order; later ones replace earlier ones of the same metric."""
    append(path, [record("c1"), record("c0", 1.0), record("c0", 3.0, name="a")])
    append(path, [record("c0", 2.0)])
    found = [(r.cell, r.metric.definition.name, r.metric.value) for r in read(path)]
    assert [("c0", "a", 3.0), ("c0", "fd-tiny", 2.0), ("c1", "fd-tiny", 1.5)] == found


def test_a_failure_is_forgotten_when_the_cell_succeeds(path, record):
    """A retried cell is ok; a failure after a success is kept beside the numbers."""
    failure = record(value=None, status="failed", reason="no memory")
    append(path, [failure, record()])
    assert ["ok"] == [found.status for found in read(path)]
    append(path, [failure])
    assert ["failed", "ok"] == [found.status for found in read(path)]


def test_a_failed_metric_stands_beside_the_numbers_until_its_source_is_ok(path, record):
    """It replaces nothing, and a retry of the metric takes it away."""
    failure = replace(
        record(value=None, status="failed", reason="no weights"), failed_metric="m", source="k"
    )
    append(path, [record(), failure])
    assert ["m", None] == [found.failed_metric for found in read(path)]
    append(path, [replace(record(name="sharp"), source="k", source_values=1)])
    assert ["ok", "ok"] == [found.status for found in read(path)]


def test_a_torn_last_line_is_ignored_then_removed(path, record, caplog):
    """Reading says so; the next append leaves whole lines only."""
    append(path, [record("c0"), record("c1")])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:200])
    with caplog.at_level(logging.WARNING, "tfq_bench.store"):
        assert 2 == len(read(path))
    assert "line 3" in caplog.text
    append(path, [record("c2")])
    assert ["c0", "c1", "c2"] == [found.cell for found in read(path)]
    assert 3 == len([json.loads(line) for line in path.open()])


def test_a_last_line_that_lacks_only_its_end_is_kept(path, record):
    """The record is whole, so it is ended, not removed."""
    append(path, [record("c0")])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    append(path, [record("c1")])
    assert ["c0", "c1"] == [found.cell for found in read(path)]


def test_a_torn_line_longer_than_one_block_is_removed(path, record):
    """Healing looks back as far as it must."""
    append(path, [record("c0")])
    with path.open("ab") as file:
        file.write(b'{"schema": "' + b"x" * 200_000)
    append(path, [record("c1")])
    assert ["c0", "c1"] == [found.cell for found in read(path)]


def test_a_broken_line_in_the_middle_is_an_error(path, record):
    """Only the last line can be torn by a crash; anything else was edited."""
    append(path, [record("c0")])
    path.write_bytes(b'{"half\n' + path.read_bytes())
    with pytest.raises(StoreError, match="line 1: expected a JSON object, found b'"):
        read(path)


def test_another_schema_is_refused(path, record):
    """The message says both numbers and the line."""
    path.write_text(json.dumps({**record_to_json(record()), "schema": 7}) + "\n")
    with pytest.raises(StoreError, match="line 1: expected a record of schema 2, found 7"):
        read(path)


def test_a_missing_field_is_named():
    """No KeyError reaches the user."""
    with pytest.raises(StoreError, match="expected the field 'run', found none"):
        record_from_json({"schema": 2})


def test_a_full_disk_leaves_the_file_as_it_was(path, record, monkeypatch):
    """A write that got half-way is taken back."""
    append(path, [record("c0")])
    before = path.read_bytes()
    pwrite = os.pwrite

    def full(descriptor, content, offset):
        if len(content) <= 50:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, content[:-50], offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreError, match=r"cannot write '.*records\.jsonl': no space is left"):
        append(path, [record("c1")])
    assert before == path.read_bytes()


WRITER = """
import json, sys
from pathlib import Path
from tfq_bench.store.records import append, record_from_json
line, path = json.loads(sys.argv[1]), Path(sys.argv[2])
for i in range(30):
    append(path, [record_from_json({**line, "cell": f"{sys.argv[3]}-{i}"})])
"""


def test_two_processes_may_append(path, record):
    """No line is lost or mixed."""
    line = json.dumps(record_to_json(record(value=2.0)))
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, line, str(path), name]) for name in "ab"
    ]
    assert [0, 0] == [writer.wait() for writer in writers]
    expected = {f"{name}-{i}" for name in "ab" for i in range(30)}
    assert expected == {found.cell for found in read(path)}
    assert 60 == len(path.read_text().splitlines())


def test_records_of_versions_that_knew_less_are_read(record):
    """Margin and metric are then unknown, and the definition's id is what it was."""
    written = record(value=1.0)
    by = MeasuredBy(metric="dist:fd", options={"scale": 2.0})
    definition = replace(written.metric.definition, measured_by=by)
    data = record_to_json(replace(written, metric=replace(written.metric, definition=definition)))
    assert definition == record_from_json(data).metric.definition
    for name in ("margin", "measured_by"):
        del data["metric"][name]
    found = record_from_json(data).metric.definition
    assert found.measured_by is None
    assert definition_id(found) == definition_id(written.metric.definition)
    assert definition_id(found) != definition_id(definition)
