"""The error tree and its suggestions."""

import json
import math
import pickle
from pathlib import Path

import pytest

from tfq_bench import errors


def test_every_error_is_drawn_in_the_tree():
    """The picture in the module's docstring is complete."""
    names = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.TfqError)
    ]
    assert [] == [name for name in names if name not in errors.__doc__]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError, 2),
        (errors.PluginConflict, 2),
        (errors.StoreError, 2),
        (errors.MetricError, 3),
        (errors.NotComparable, 4),
        (errors.NothingToDo, 5),
    ],
)
def test_exit_codes(error, code):
    """Scripts tell the kinds of failure apart."""
    assert code == error.exit_code


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("rnt", "did you mean 'rtn'? Known: fp, rtn."),
        ("zzzzz", "known: fp, rtn."),
    ],
)
def test_nearest_names(name, sentence):
    """Near names are offered, and all are listed."""
    assert sentence == errors.nearest(name, ["rtn", "fp"])


def test_nearest_of_nothing():
    """Where nothing is installed, nothing is offered."""
    assert "None is installed." == errors.nearest("rtn", [])


def test_the_context_is_data():
    """Known fields in one order; paths and values that JSON has no word for are text."""
    error = errors.StoreError("no", found=[1], file=Path("a"), expected=2.5)
    assert {"file": "a", "expected": 2.5, "found": "[1]"} == error.context.known()
    assert "no" == str(error)
    assert {} == errors.StoreError("no").context.known()


@pytest.mark.parametrize(
    "value",
    [math.nan, 10**5000, [10**5000], {"a": object()}, b"x"],
    ids=["nan", "long", "long in a list", "object", "bytes"],
)
def test_any_value_can_be_written(value):
    """Strict JSON, whatever a file or a plugin had there."""
    text = json.dumps(errors.TfqError("no", found=value).context.known(), allow_nan=False)
    assert ["found"] == list(json.loads(text))


def test_a_context_is_completed_from_outside_and_never_replaced():
    """Who knows the file adds it; who raised knows best what was found."""
    with pytest.raises(errors.SuiteError) as caught, errors.locating(file="s.toml", found="x"):
        raise errors.SuiteError("no", found=False)
    assert {"file": "s.toml", "found": False} == caught.value.context.known()


def test_the_context_survives_a_process():
    """Errors are sent between processes."""
    error = pickle.loads(pickle.dumps(errors.SuiteError("no", layer="conv_in")))
    assert {"layer": "conv_in"} == error.context.known()


def test_an_unknown_field_is_a_mistake_of_the_code():
    """There are no others."""
    with pytest.raises(TypeError, match="colour"):
        errors.TfqError("no", colour="red")
