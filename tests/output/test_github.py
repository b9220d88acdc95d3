"""Annotations are escaped and few; the summary never outgrows what GitHub keeps."""

import errno
from pathlib import Path

import pytest

from tfq_bench.errors import StoreError
from tfq_bench.output.github import LIMIT_BYTES, append_summary, error_lines


def test_an_annotation_is_escaped(verdict, result):
    """Per cent signs everywhere, line breaks become spaces, colons and commas in the title."""
    bad = verdict("regressed", metric="a:b,c%", message="5 %\r\nworse: x, y", label="cell")
    assert ("::error title=a%3Ab%2Cc%25 regressed::cell: 5 %25 worse: x, y",) == error_lines(
        result(bad, verdict("pass"))
    )


def test_few_annotations_are_printed(verdict, result):
    """GitHub drops the eleventh; the last one says how many there are."""
    lines = error_lines(result(*[verdict("regressed")] * 25))
    assert 10 == len(lines)
    assert "::error title=gate::16 more verdicts are in the job summary" == lines[-1]
    assert 10 == len(error_lines(result(*[verdict("regressed")] * 10)))


def test_the_summary_is_appended(verdict, result, tmp_path):
    """What earlier steps wrote stays."""
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    append_summary(result(verdict("regressed")), path)
    assert path.read_text().startswith("before\n### Gate failed (1 regressed).\n")


def test_the_summary_is_capped(verdict, result, tmp_path):
    """Above the limit, GitHub would show nothing at all."""
    path = tmp_path / "summary.md"
    huge = result(verdict("regressed", label="worst"), *[verdict(label="x" * 2000)] * 1000)
    append_summary(huge, path)
    assert 800_000 < path.stat().st_size <= LIMIT_BYTES
    assert "| regressed | worst |" in path.read_text()
    append_summary(huge, path)
    assert path.stat().st_size <= LIMIT_BYTES


def test_a_summary_that_cannot_be_written_is_told(verdict, result, tmp_path, monkeypatch):
    """In words, with the path."""

    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StoreError, match="permission was denied"):
        append_summary(result(verdict("regressed")), tmp_path / "summary.md")
