"""The table of what others report: every number has a place where it was read."""

import csv
from pathlib import Path

FILE = Path(__file__).parents[1] / "docs" / "published.csv"
SEEN = {"quoted in a later text", "abstract or authors' page", "repository"}


def test_every_number_says_where_it_was_read():
    """Numbers are numbers, and no two lines say the same thing differently."""
    with FILE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    said = {}
    for row in rows:
        float(row["value"])
        assert row["told_by"]
        assert row["seen"] in SEEN
        key = tuple(value for name, value in row.items() if name not in ("value", "remark"))
        assert said.setdefault(key, row["value"]) == row["value"]
    assert len(rows) > 100
