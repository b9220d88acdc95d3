"""Rules are checked when they are read, and say what they cover."""

import json
import tomllib
from importlib.resources import files

import jsonschema
import pytest

from tfq_bench.errors import SuiteError
from tfq_bench.stats.rules import BUILT_IN, load_rules
from tfq_bench.types import MetricDefinition

SCHEMA = json.loads((files("tfq_bench") / "schemas" / "rules.schema.json").read_text())

EVERY_RULE = """
schema = 1
[[rule]]
metric = "fd-*"
cell = "* / rtn * / *"
no-worse-than = { ratio = 1.05 }
on-inconclusive = "fail"
[[rule]]
no-worse-than = { margin = 0.5 }
on-missing = "ignore"
[[rule]]
band = [1, 2.5]
needs-same-hardware = true
[[rule]]
at-most = 3
[[rule]]
at-least = -1.5
[[rule]]
same = { rtol = 1e-6 }
[[rule]]
ignore = true
"""


@pytest.fixture
def load(tmp_path):
    """A function that reads the text of a rules file."""

    def read(text):
        path = tmp_path / "rules.toml"
        path.write_text(text)
        return load_rules(path)

    return read


def definition(name="fd-tiny", *, direction="lower", volatile=False):
    """A metric's definition."""
    return MetricDefinition(name=name, unit="", direction=direction, summary="", volatile=volatile)


def test_every_rule_is_read(load):
    """Limits, numbers and options, after the built-in rules; the schema agrees."""
    rules = load(EVERY_RULE)
    jsonschema.validate(tomllib.loads(EVERY_RULE), SCHEMA)
    assert BUILT_IN == rules[: len(BUILT_IN)]
    assert [
        ("no-worse-ratio", (1.05,)),
        ("no-worse-margin", (0.5,)),
        ("band", (1.0, 2.5)),
        ("at-most", (3.0,)),
        ("at-least", (-1.5,)),
        ("same", (1e-6, 0.0)),
        ("ignore", ()),
    ] == [(rule.kind, rule.numbers) for rule in rules[len(BUILT_IN) :]]
    first, second, third = rules[len(BUILT_IN) :][:3]
    assert ("fd-*", "* / rtn * / *", "fail") == (first.metric, first.cell, first.on_inconclusive)
    assert ("ignore", True) == (second.on_missing, third.needs_same_hardware)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("metrc = 'fd'\nignore = true", "rule 1: unknown key 'metrc'; did you mean 'metric'"),
        ("no-worse-than = {ration = 1.1}", "unknown key 'ration'; did you mean 'ratio'"),
        ("no-worse-than = 1.02", "expected { ratio = ... }, found 1.02"),
        ("no-worse-than = {}", "expected either ratio or margin, found {}"),
        ("no-worse-than = {ratio = 0.9}", "ratio: expected a number of at least 1, found 0.9"),
        ("metric = 'fd'", "expected exactly one of"),
        ("at-most = 1\nat-least = 0", "found at-most and at-least"),
        ("band = [2, 1]", "expected low <= high, found [2, 1]"),
        ("at-most = nan", "expected a finite number, found nan"),
        ("at-most = true", "expected a finite number, found True"),
        ("at-most = '3'", "expected a finite number, found '3'"),
        ("same = {rtol = -1}", "rtol: expected a number of at least 0, found -1"),
        ("ignore = false", "expected true, found False"),
        ("ignore = true\non-missing = 'warn'", "'on-missing' must be 'fail' or 'ignore', found 'w"),
        ("ignore = true\nneeds-same-hardware = 1", "must be true or false, found 1"),
        ("ignore = true\ncell = 3", "'cell' must be text, found 3"),
    ],
)
def test_mistakes_in_a_rule_say_expected_and_found(load, rule, message):
    """With the rule's number and the nearest known names."""
    with pytest.raises(SuiteError) as caught:
        load(f"schema = 1\n[[rule]]\n{rule}")
    assert message in str(caught.value)
    assert "rules.toml, rule 1" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema = 2", "expected 'schema = 1', found 2"),
        ("schema = 1\nrules = []", "unknown key 'rules'; did you mean 'rule'"),
        ("schema = 1\n[rule]\nignore = true", r"expected [[rule]] tables"),
        ("schema 1", "is not TOML"),
    ],
)
def test_mistakes_in_the_file_say_expected_and_found(load, text, message):
    """Before any rule is read."""
    with pytest.raises(SuiteError) as caught:
        load(text)
    assert message in str(caught.value)


def test_a_missing_file_is_told(tmp_path):
    """Without a traceback."""
    with pytest.raises(SuiteError, match="cannot read the rules"):
        load_rules(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("rule", "metric", "covered"),
    [
        ("metric = 'fd-*'\nat-most = 1", definition(), True),
        ("metric = 'kd-*'\nat-most = 1", definition(), False),
        ("cell = '* / rtn *'\nat-most = 1", definition(), True),
        ("cell = '* / tfmq *'\nat-most = 1", definition(), False),
        ("at-most = 1", definition(volatile=True), False),
        ("metric = 'fd*'\nat-most = 1", definition(volatile=True), True),
        ("no-worse-than = {margin = 1}", definition(direction="none"), False),
        ("band = [0, 1]", definition(direction="none"), True),
    ],
)
def test_rules_cover_by_name_label_volatility_and_direction(load, rule, metric, covered):
    """A bare `*` leaves times alone, and `no-worse-than` needs a direction."""
    assert covered is load(f"schema = 1\n[[rule]]\n{rule}")[-1].covers(
        "tiny / rtn W4A8 / cpu", metric
    )
