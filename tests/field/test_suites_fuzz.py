"""Whatever stands in a suite, `plan` ends soon, with a plan or with one short sentence."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfq_bench.cli import main
from tfq_bench.errors import SuiteError
from tfq_bench.plan.planner import make_plan
from tfq_bench.plan.suite import load_suite, parse_suite
from tfq_bench.plan.suite_format import MAX_BYTES
from tfq_bench.testing.fuzzing import fuzz

SUITE = """\
schema = 1
seeds = [0]

[suite]
name = "tiny"
threads = 1

[sampling]
sampler = "ddim"
steps = 3
images = 4
batch = 2
shard = 2

[calibration]
images = 2

[[model]]
name = "tiny"
weights_seed = 0

[[quantizer]]
name = "fp"

[[quantizer]]
name = "rtn"
wbits = [8, 4]
abits = 8
weights = "mse"

[[backend]]
name = "simulate"

[[metric]]
name = "paired"

[[exclude]]
scheme = "W4*"
reason = "no"
"""
LINES = SUITE.splitlines()
VALUES = re.findall(r"= (.+)", SUITE)

values = st.one_of(
    st.sampled_from(
        [
            "-1",
            "0",
            "1",
            "1e400",
            "nan",
            "inf",
            "true",
            "''",
            "[]",
            "[[]]",
            "{}",
            "1979-05-27",
            "10000000000000000000000",
            "999999",
            "1000000",
            "'x'",
            "[1, 'a']",
            "'tiny-dist:tiny'",
            '"\\u0000"',
            '"\\u001b[31m"',
            "'../../etc'",
            "'a/b'",
            "'*'",
            "[8, 8]",
            "[4, 8, 6]",
        ]
    ),
    st.integers(-(10**12), 10**12).map(str),
    st.sampled_from(VALUES),
    st.text(max_size=20).map(lambda text: '"' + text.replace("\\", "").replace('"', "") + '"'),
)
lines = st.one_of(
    st.sampled_from(LINES),
    st.tuples(
        st.sampled_from(["steps", "name", "schema", "x.y", "optional", "policy"]), values
    ).map(" = ".join),
    st.text(max_size=30),
)


@st.composite
def mutated(draw):
    """The suite with one to six lines changed, doubled, lost, swapped or cut."""
    text = list(LINES)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(text) - 1))
        match draw(st.sampled_from(["value", "value", "value", "line", "drop", "double", "cut"])):
            case "value" if "=" in text[place]:
                text[place] = f"{text[place].partition('=')[0]}= {draw(values)}"
            case "line":
                text.insert(place, draw(lines))
            case "drop" if len(text) > 1:
                del text[place]
            case "double":
                text.insert(place, text[place])
            case "cut":
                text[place] = text[place][: draw(st.integers(0, 30))]
    return "\n".join(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An empty folder, for relative paths."""
    return tmp_path_factory.mktemp("suites")


@fuzz(120)
@given(text=mutated())
def test_fuzz_suites(tiny_table, folder, text):
    """A plan, or a sentence of at most a screen, without control characters."""
    try:
        plan = make_plan(parse_suite(text, "s.toml", folder), tiny_table)
    except Exception as error:
        assert hasattr(error, "exit_code"), f"{type(error).__name__}: {error}"  # noqa: PT017
        assert len(str(error)) < 4000  # noqa: PT017
        assert "\x1b" not in str(error)  # noqa: PT017
        assert "\x00" not in str(error)  # noqa: PT017
    else:
        assert len(plan.cells) <= 5000


@pytest.fixture
def tiny_table(plugin_host):
    """The host's own plugins and the model `tiny`."""
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    return plugin_host.discover()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("images = 4", "images = 1000000", "500,000 shards"),
        ("images = 4", "images = 1000000000000", "must lie in [2, 1000000]"),
        ("images = 2", "images = 100000000000", "must lie in [1, 1000000]"),
        ("seeds = [0]", f"seeds = {list(range(9000))}", "27,000 cells"),
        ("wbits = [8, 4]", f"wbits = {[8] * 30000}", "cells, more than the 5,000"),
        ("wbits = [8, 4]\nabits = 8", f"abits = {[8] * 900}\nwbits = {[8] * 900}", "810,001 cells"),
        ('name = "paired"', 'name = "paired"\n' + '[[metric]]\nname = "bits"\n' * 600, "at most"),
        ("steps = 3", "steps = 10000000", "must lie in [1, 10000]"),
    ],
)
def test_absurd_numbers_are_refused_before_the_work(tiny_table, folder, old, new, words):
    """The plan would take minutes or all memory; the sentence has the number and the limit."""
    with pytest.raises(SuiteError) as caught:
        make_plan(parse_suite(SUITE.replace(old, new, 1), "s.toml", folder), tiny_table)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        'x = "' + "y" * 10_000_000 + '"',
        "a." * 60_000 + "b = 1",
        "x = " + "[" * 60_000,
        "x = " + "{a=" * 30_000,
        "[" + "a." * 60_000 + "b]",
        "\n".join("[" + "a." * 500 + f"b{i}]" for i in range(100)),
        '"' * 100_000,
        "x = '''" + "\\" * 100_000,
        '"\\' * 50_000,
    ],
    ids=range(9),
)
def test_huge_and_deep_files_are_refused_before_the_parser(tmp_path, text, capsys):
    """Its time grows with the square of some of them, and its memory too."""
    path = tmp_path / "s.toml"
    path.write_text(text)
    assert 2 == main(["plan", str(path)])
    assert len(capsys.readouterr().err) < 1000


def test_no_more_is_read_than_a_suite_may_have():
    """A device that never ends is a file that is too large."""
    with pytest.raises(SuiteError, match="more than 131,072 bytes"):
        load_suite("/dev/zero")


def test_dots_in_text_are_no_depth():
    """Ellipses in comments and texts do not count as nesting."""
    text = SUITE.replace('name = "tiny"', f'summary = "{"." * 50}" # {"." * 50}\nname = "tiny"', 1)
    assert "." * 50 == parse_suite(text, "s.toml", Path()).summary
    assert len(text) < MAX_BYTES


@pytest.mark.parametrize(
    "change", [lambda b: b"\xef\xbb\xbf" + b, lambda b: b.replace(b"\n", b"\r\n")]
)
def test_a_suite_of_another_editor_is_the_same(tmp_path, change):
    """A byte order mark and line ends of Windows say nothing."""
    (tmp_path / "suite.toml").write_bytes(SUITE.encode())
    (tmp_path / "other.toml").write_bytes(change(SUITE.encode()))
    one, other = (load_suite(str(tmp_path / name)) for name in ("suite.toml", "other.toml"))
    assert one == replace(other, text=one.text)
