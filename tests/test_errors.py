"""The error tree and its suggestions."""

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
