"""Foreign text and JSON."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfq_bench.foreign.text import MAX_DEPTH, harmless, parse_json, printable
from tfq_bench.testing.fuzzing import fuzz


def test_text_becomes_one_line_that_nothing_acts_on():
    """Newlines, escapes, separators, direction marks and lone surrogates lose their power."""
    found = printable("a\n::error::b\x1b[31m\x00 c\u2028d\u202ee\ud800")

    assert r"a ::error::b\x1b[31m\x00 c d\u202ee\ud800" == found


def test_an_exception_that_cannot_say_itself_is_named():
    """A plugin's `__str__` may raise as well."""

    class Mute(Exception):
        def __str__(self):
            raise KeyError("x")

    assert "Mute, whose text raised KeyError" == printable(Mute())


def test_lines_stay_lines_where_they_may():
    """Logs keep their form; nothing of them acts."""
    assert "a\n\tb  c\\x1b[31m" == harmless("a\r\n\tb  c\x1b[31m")


@fuzz(100)
@given(st.text(st.characters(exclude_categories=())))
def test_fuzz_any_text_can_be_encoded_and_printed(text):
    """Whatever it was, it is one line of printable characters in UTF-8."""
    line = printable(text)

    assert len(line.splitlines()) <= 1
    line.encode("utf-8")


def test_a_long_text_is_cut_and_says_how_long_it_was():
    """Five million characters take no time."""
    start = time.process_time()
    line = printable("x" * 5_000_000)

    assert line.endswith("... (5,000,000 characters)")
    assert len(line) < 2100
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 100_000, "nested more than"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "nested more than"),
        (b'{"a": 1, "a": 2}', "'a' twice"),
        (b'{"a": NaN}', "NaN"),
        (b"{", "not JSON"),
        (b'"\xff"', "not UTF-8"),
        (b" " * 2000, "more than the 1,000 allowed"),
    ],
)
def test_what_is_not_plain_json_is_refused_in_words(content, words):
    """Deep, ambiguous, not strict, torn, wrongly encoded and huge files are each called so."""
    with pytest.raises(ValueError, match=words):
        parse_json(content, max_bytes=1000 if content.isspace() else 1 << 30)


@fuzz(100)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_fuzz_plain_json_comes_back_as_it_was(value):
    """Brackets inside of strings count as text."""
    assert value == parse_json(json.dumps(value))


def test_brackets_in_strings_are_no_depth():
    """A string of brackets is shallow."""
    assert ["[" * 500] == parse_json(json.dumps(["[" * 500]))
    assert MAX_DEPTH < 500
