"""A value that cannot be stored fails its metric in words; nothing else of the cell is lost.

Each kind was once stored, and the run folder could not be read any more, or a gate let it pass.
"""

import pytest

from tfq_bench.errors import MetricError
from tfq_bench.pipeline.values import checked_values

from .one_bad_metric import check_only_mine_failed, source

WRONG = [
    ("[replace(GOOD, value=float('nan'))]", "'score' is nan, which is not a finite number"),
    ("[replace(GOOD, value=-math.inf)]", "'score' is -inf, which is not a finite number"),
    ("[replace(GOOD, value='1')]", "'score' must be a number, found str '1'"),
    ("[replace(GOOD, value=torch.tensor(1.0))]", "must be a number, found Tensor"),
    ("[other(name=5)]", "a value's name must be text, found int 5"),
    ("[other(name='')]", "a value's name must not be empty"),
    ("[other(name='a\\n::error::b')]", "must be one printable line"),
    ("[other(name='\\ud800')]", "must be one printable line"),
    ("[other(direction='sideways')]", "direction must be one of lower, higher, none, found"),
    ("[other(unit=None)]", "unit must be text, found NoneType"),
    ("[other(parameters={'x': float('nan')})]", "parameters, x must be finite numbers"),
    ("[other(parameters={'x': object()})]", "parameters, x must be what JSON can say"),
    ("[other(parameters={1: 2})]", "parameters: keys must be text, found int 1"),
    ("[other(parameters={'x': np.zeros(2)})]", "must be what JSON can say"),
    ("[other(margin=math.inf)]", "margin is inf, which is not a finite number"),
    ("[other(margin=-1)]", "margin must be at least 0, found -1.0"),
    ("[other(volatile=1)]", "volatile must be true or false"),
    ("[replace(GOOD, n=0)]", "n must be a whole number of at least 1, found int 0"),
    ("[replace(GOOD, n=4.0)]", "n must be a whole number of at least 1, found float 4.0"),
    ("[GOOD, GOOD]", "two of its values are called 'score'; every name stands once"),
    ("None", "'evaluate' must return a tuple of MetricValue, found NoneType None"),
    ("[{'score': 1.0}]", "must return a tuple of MetricValue, found dict"),
    (
        "[replace(GOOD, interval=api.Interval(low=0, high=1, level=1.0, method='m'))]",
        "must lie between 0.5 and 1, found 1.0",
    ),
    (
        "[replace(GOOD, interval=api.Interval(low=0, high=1, level=0.05, method='m'))]",
        "the interval's level, its chance to hold the true value, must lie between 0.5 and 1",
    ),
    (
        "[replace(GOOD, interval=api.Interval(low=2, high=1, level=0.9, method='m'))]",
        "the interval's low end 2.0 is above its high end 1.0",
    ),
    (
        "[replace(GOOD, interval=api.Interval(low=-math.inf, high=1, level=0.9, method='m'))]",
        "the interval's low end is -inf",
    ),
    (
        "[replace(GOOD, replicates=(1.0, math.nan), pairing='p')]",
        "replicates, number 1 is nan",
    ),
    ("[replace(GOOD, replicates=(1.0, 2.0))]", "replicates need a pairing"),
    ("[replace(GOOD, series={'x': (math.inf,)})]", "curve 'x', number 0 is inf"),
    ("[replace(GOOD, reference='another-cell')]", "reference must be the cell's"),
]


def made(text):
    """The metric of a plugin with this source, without a run."""
    names = {"__name__": "mine"}
    exec(source(text), names)
    return names["Mine"]()


@pytest.mark.parametrize(("values", "reason"), WRONG)
def test_a_value_that_cannot_be_stored(values, reason):
    """It is refused in one line that says which value and why."""
    metric = made(values)
    with pytest.raises(MetricError) as refused:
        checked_values(metric.evaluate(None), reference=None)
    assert reason in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(("values", "reason"), WRONG[::6])
def test_a_run_with_a_value_that_cannot_be_stored(run, values, reason):
    """The metric fails, every other number is there, and the folder reads well."""
    check_only_mine_failed(*run(source(values)), reason)
