"""Records that were changed, lost, doubled or moved never pass for true ones.

One tiny run is the truth. Whatever a command answers on a damaged copy is the original's answer, or
says that something is wrong.
"""

import json
import logging

import pytest

import tfq_bench
from tfq_bench.cli import main
from tfq_bench.errors import StoreError
from tfq_bench.store.run import RunFolder

from .answers import call, edit, gate


def psnr(path):
    """The line of `records.jsonl` with a PSNR, and its number."""
    lines = path.read_bytes().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if b'"name":"psnr"' in line)
    return lines, at, json.loads(lines[at])["metric"]["value"]


def change_value(lines, at, value):
    """Adds five to the number, and leaves its checksum alone."""
    return [
        *lines[:at],
        lines[at].replace(str(value).encode(), str(value + 5).encode(), 1),
        *lines[at + 1 :],
    ]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change_value, "expected the checksum"),
        (lambda lines, at, _: lines[:at] + lines[at + 1 :], "lost, doubled or moved"),
        (lambda lines, at, _: [*lines[: at + 1], *lines[at:]], "lost, doubled or moved"),
        (lambda lines, at, _: [lines[at], *lines[:at], *lines[at + 1 :]], "expected the checksum"),
        (lambda lines, *_: lines[::-1], "expected the checksum"),
        (lambda lines, *_: lines + lines, "expected the checksum"),
        (lambda lines, *_: [line.replace(b"\n", b"\r\n") for line in lines], "expected a record"),
        (lambda lines, at, _: [*lines[:at], b"[" * 100_000 + b"\n", *lines[at:]], "nested more"),
        (lambda lines, at, _: [*lines[:at], b"\xff\xfe\n", *lines[at:]], "line"),
    ],
)  # fmt: skip
def test_changed_records_are_refused_by_every_reader(copy, damage, words):
    """With the file, the line and what to do; the suite then runs again without computing."""
    path = copy / "run" / "records.jsonl"
    path.write_bytes(b"".join(damage(*psnr(path))))
    base = ("--baseline", copy / "base.json")
    for argv in (
        ("gate", copy / "run", *base),
        ("compare", copy / "run"),
        ("status", copy / "run"),
        ("baseline", "save", copy / "run", "-o", copy / "other.json"),
    ):
        code, _, err = call(*argv)
        assert 2 == code, argv
        assert words in err
        assert "records.jsonl', line" in err
        assert "Run the suite again" in err
    with pytest.raises(StoreError, match="line"):
        tfq_bench.load_records(copy / "run")


def test_lines_lost_at_the_end_leave_their_cell_unfinished(truth, copy, caplog):
    """No chain can know them; the count in every record does."""
    path = copy / "run" / "records.jsonl"
    lines = truth.lines.splitlines(keepends=True)
    for kept in range(len(lines)):
        path.write_bytes(b"".join(lines[:kept]))
        code, out = gate(copy)
        assert 1 == code, kept
        assert "not finished" in out
    code, out, _ = call("status", copy / "run", "--json")
    assert "unfinished" in {cell["status"] for cell in json.loads(out)["cells"]}
    assert "not finished" in call("compare", copy / "run")[1]
    with caplog.at_level(logging.WARNING, "tfq_bench.store"):
        tfq_bench.load_records(copy / "run")
    assert "are not finished" in caplog.text


@pytest.mark.parametrize("damage", ["edited", "gone", "older", "torn"])
def test_records_are_made_again_from_artefacts(tiny_suite, tmp_path, truth, damage, caplog):
    """Damaged, deleted and older records: the same command heals them and computes nothing."""
    run, suite = tmp_path / "r", str(tiny_suite())
    assert 0 == main(["run", suite, "--run", str(run), "--no-report"])
    path = run / "records.jsonl"
    whole = path.read_bytes()
    before = RunFolder.open(run).records()
    stamps = {p: p.stat().st_mtime_ns for p in (run / "artefacts").rglob("*") if p.is_file()}
    if damage == "edited":
        path.write_bytes(b"".join(change_value(*psnr(path))))
    elif damage == "gone":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        old = [json.loads(line) for line in whole.splitlines()]
        text = "".join(
            json.dumps({k: v for k, v in o.items() if k != "check"} | {"schema": 1}) + "\n"
            for o in old
        )
        path.write_text(text)
        edit(run / "plan.json", '"schema": 2', '"schema": 1')
        code, _, err = call("status", run)
        assert (2, True) == (code, "expected schema 2, found 1. Run the suite again" in err)
    assert 0 == main(["run", suite, "--run", str(run), "--no-report"])
    assert before == RunFolder.open(run).records()
    assert stamps == {
        p: p.stat().st_mtime_ns for p in (run / "artefacts").rglob("*") if p.is_file()
    }
    aside = list(run.glob("records.jsonl.damaged-*"))
    assert (damage in ("edited", "older")) == bool(aside)


def test_numbers_of_an_evaluation_that_is_not_planned_are_old(copy):
    """An edit of a metric moves its key; until the suite runs again, the old value is not shown."""
    run = RunFolder.open(copy / "run")
    plan = run.plan()
    for cell in plan["cells"]:
        cell["keys"]["evaluate"] = [f"new{key}" for key in cell["keys"]["evaluate"]]
    run.write("", plan)
    assert () == RunFolder.open(run.path).records()
    code, out = gate(copy)
    assert (1, True) == (code, "it has no results yet" in out)
