"""`--set`: other values in a suite's own text, where every reader of the text finds them."""

from pathlib import Path

import pytest

from tfq_bench.errors import SuiteError, UsageError
from tfq_bench.plan.suite import load_suite, packaged_suites, parse_suite
from tfq_bench.plan.suite_values import with_values

TEXT = """\
# What it is for.
schema = 1

[suite]
name = "small" # of the run folder too

[[model]]
name = "cifar10"

[[quantizer]]
name = "rtn"
wbits = 4

[[quantizer]]
name = "rtn"
wbits = 8

[[metric]]
name = "paired"
"""


def parsed(*values):
    """The suite with these values."""
    return parse_suite(with_values(TEXT, values), "small", Path())


def test_values_of_every_kind():
    """Sections that are there or not, all tables of a name, and the seeds."""
    spec = parsed(
        "sampling.images=128",
        "suite.device=cuda",
        'model.cifar10.dtype="bfloat16"',
        "quantizer.rtn.policy=uniform",
        "quantizer.rtn.wbits=[6, 4]",
        "seeds=[3, 4]",
    )
    assert 128 == spec.sampling["images"]
    assert "cuda" == spec.device
    assert {"dtype": "bfloat16"} == spec.models[0].given
    assert [{"wbits": [6, 4], "policy": "uniform"}] * 2 == [q.given for q in spec.quantizers]
    assert (3, 4) == spec.seeds


def test_the_text_says_it_and_keeps_its_comments():
    """What a run folder stores is what was run."""
    text = with_values(TEXT, ["suite.threads=1", "seeds=[5]"])
    assert text.count("#") == TEXT.count("#")
    assert "threads = 1" in text
    assert text == parse_suite(text, "small", Path()).text
    assert (5,) == parse_suite(text, "small", Path()).seeds
    again = with_values(text, ["seeds=[6]"])
    assert 1 == again.count("seeds")


def test_without_values_a_suite_is_as_it_was():
    """Every packaged one, byte for byte, and also through the parser that keeps comments."""
    for name, text in packaged_suites().items():
        assert text == load_suite(name).text == with_values(text, [])


def test_packaged_suites_take_values():
    """The suite that is loaded is the one that was asked for."""
    spec = load_suite("quickstart", ["sampling.images=16", "timing.rounds=3"])
    assert (16, 3) == (spec.sampling["images"], spec.timing["rounds"])
    assert "images = 16" in spec.text


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("sampling.images", "--set expects seeds=VALUE, SECTION.KEY=VALUE"),
        ("sampling=3", "found 'sampling=3'"),
        ("seeds.x=3", "found 'seeds.x=3'"),
        ("model.dtype=float32", "found 'model.dtype=float32'"),
        ("samplin.images=3", "unknown 'samplin'; did you mean 'sampling'"),
        ("quantizer.rtm.wbits=3", "has no [[quantizer]] 'rtm'; did you mean 'rtn'"),
        ("backend.cpu.optional=true", "has no [[backend]] 'cpu'"),
    ],
)
def test_what_has_no_place_is_refused(value, says):
    """With the nearest name."""
    with pytest.raises(UsageError, match=says.replace("[", r"\[").replace("]", r"\]")):
        with_values(TEXT, [value])


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("sampling.imagse=3", "with --set \\[sampling\\]: unknown .*did you mean 'images'"),
        ("sampling.images=many", "with --set \\[sampling\\]: .*images"),
        ("seeds=3", "with --set: 'seeds' must be a list"),
        ("seeds=one, two", "with --set: 'seeds' must be a list"),
        ("seeds=" + "[" * 1000, "with --set: "),
        ("sampling.steps=" + "[" * 400 + "]" * 400, "with --set"),
    ],
)
def test_keys_and_values_are_judged_as_in_a_file(tmp_path, value, says):
    """The message says that it was not the file."""
    file = tmp_path / "small.toml"
    file.write_text(TEXT)
    with pytest.raises(SuiteError, match=says):
        load_suite(str(file), [value])
