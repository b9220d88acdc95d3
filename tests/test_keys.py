"""Keys say what something is: equal content, equal key; any difference, another."""

import hashlib
import json
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfq_bench.keys import canonical, content_digest, definition_id, digest, file_digest
from tfq_bench.types import MetricDefinition

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
LEAVES = LEAVES.filter(lambda value: value not in (float("inf"), float("-inf")))
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
DEFINITION = {"name": "fd", "unit": "dB", "direction": "lower", "parameters": {"n": 4, "z": (1,)}}


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_canonical_json_loses_nothing(value):
    """Text, numbers to the last bit and nesting come back; the text is ASCII on one line."""
    text = canonical(value)
    assert value == json.loads(text)
    assert text.isascii()
    assert text == canonical(json.loads(text))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(), VALUES))
def test_the_order_of_keys_is_nothing(value):
    """Objects written in another order have the same digest."""
    turned = dict(reversed(value.items()))
    assert digest(value) == digest(turned)
    assert digest({"inner": [value]}) == digest({"inner": [turned]})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"a": (x,)}])
def test_numbers_that_json_cannot_say(number, wrap):
    """NaN and infinities have no key, at any depth."""
    with pytest.raises(ValueError, match="JSON"):
        canonical(wrap(number))


@pytest.mark.parametrize("value", [{1: "a"}, {"a": {None: 1}}, {1, 2}, object(), b"bytes"])
def test_what_is_not_json(value):
    """Objects, and keys that json would turn into text and mix up, are refused."""
    with pytest.raises(TypeError):
        canonical(value)


def test_any_mapping_and_sequence_counts_by_content():
    """Read-only mappings and tuples are written like dictionaries and lists."""
    value = MappingProxyType({"a": (1, MappingProxyType({"b": 2}))})
    assert '{"a":[1,{"b":2}]}' == canonical(value)


@pytest.mark.parametrize(("one", "other"), [(1, True), (1, "1"), ([], {}), (0.1, 0.1 + 1e-17 * 8)])
def test_different_values_differ(one, other):
    """Types and last bits matter."""
    assert digest(one) != digest(other)


def test_digests_are_fixed():
    """Keys of stored artefacts stay valid: SHA-256 of the canonical text, cut to length."""
    assert "46e0ff59f6164548" == digest({"b": None, "a": 1}, 16)[:16]
    assert 64 == len(digest(0, 64))


def test_files_count_by_their_bytes(tmp_path):
    """Neither place nor date is part of a file's digest; in a folder, names are."""
    for name in ("one", "two"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "file").write_bytes(b"x")
    assert content_digest(tmp_path / "one") == content_digest(tmp_path / "two")
    (tmp_path / "two" / "deep" / "file").rename(tmp_path / "two" / "file")
    assert content_digest(tmp_path / "one") != content_digest(tmp_path / "two")
    assert content_digest(tmp_path / "one/deep/file") == content_digest(tmp_path / "two/file")
    (tmp_path / "two" / "file").write_bytes(b"y")
    assert content_digest(tmp_path / "one/deep/file") != content_digest(tmp_path / "two/file")


def test_a_file_has_one_digest(tmp_path):
    """SHA-256 of its bytes; nothing else in the tree computes it for a file."""
    (tmp_path / "file").write_bytes(b"abc")
    found = file_digest(tmp_path / "file")
    assert found == hashlib.sha256(b"abc").hexdigest() == content_digest(tmp_path / "file")
    root = Path(__file__).parents[1]
    sources = [
        file
        for pattern in ("tfq_bench", "plugins/*/src", "baselines/*/src", "reports/src")
        for folder in root.glob(pattern)
        for file in folder.rglob("*.py")
    ]
    assert [root / "tfq_bench" / "keys.py"] == [
        file for file in sources if "hashlib.file_digest" in file.read_text("utf-8")
    ]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"summary": "other words"}, True),
        ({"volatile": True}, True),
        ({"parameters": {"z": [1], "n": 4}}, True),
        ({"parameters": {"z": [1], "n": 5}}, False),
        ({"unit": ""}, False),
        ({"direction": "higher"}, False),
        ({"name": "kd"}, False),
    ],
)
def test_definitions(change, same):
    """What a number means is in its id; how it is described is not."""
    one = definition_id(MetricDefinition(**{"summary": "words", **DEFINITION}))
    other = definition_id(MetricDefinition(**{"summary": "words", **DEFINITION, **change}))
    assert same == (one == other)
    name, _, tail = one.partition("@")
    assert ("fd", 8) == (name, len(tail))
