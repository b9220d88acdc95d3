"""Verdicts as a table, as Markdown and as JSON."""

import json
import math

from tfq_bench.output.verdicts import to_json, to_markdown, to_text


def test_text_ends_with_the_result_and_explains_what_failed(verdict, result):
    """Passed rows are in the table only; notes are shown."""
    lines = to_text(result(verdict("regressed"), verdict("pass"), notes=("n",))).splitlines()
    assert "Gate failed (1 regressed, 1 pass)." == lines[-1]
    assert "note: n" in lines
    assert "+3 [+2.5, +3.5]" in lines[2]
    explained = [line for line in lines if "Definition" in line]
    assert 1 == len(explained)
    assert explained[0].startswith("regressed: tiny / rtn W4A8 / cpu, fd: found 103")


def test_json_is_strict(verdict, result):
    """NaN is a string; the exit code is in it."""
    data = to_json(result(verdict("failed", value=math.nan, delta=None)))
    assert data == json.loads(json.dumps(data, allow_nan=False))
    assert ("NaN", None, 1) == (
        data["verdicts"][0]["value"],
        data["verdicts"][0]["difference"],
        data["exit_code"],
    )


def test_markdown_keeps_the_worst_when_room_is_short(verdict, result):
    """The number of rows left out is told, and the limit holds in bytes."""
    many = result(verdict("regressed", label="the worst"), *[verdict(label="ü" * 50)] * 1000)
    text = to_markdown(many, limit_bytes=5000)
    assert len(text.encode()) <= 5000
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert "the worst" in rows[0]
    assert text.endswith(f"\n{1001 - len(rows)} more rows do not fit here.\n")
    assert 1003 == to_markdown(many).count("\n| ")
