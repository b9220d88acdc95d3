"""Numbers, names and redaction."""

import pytest

from tfq_bench.types import Interval
from tfq_bench_reports import formatting
from tfq_bench_reports.view.naming import short_names
from tfq_bench_reports.view.redact import redact


@pytest.mark.parametrize(
    ("expected", "value", "spread"),
    [
        ("150.9", 150.94, 6.7),
        ("0.610", 0.61, 0.021),
        (f"{formatting.MINUS}0.50", -0.5, 0.12),
        ("0.00036", 3.6e-4, 3.6e-4),
        ("32", 32.0, None),
        ("0.9", 0.9, None),
        (f"1.23e{formatting.MINUS}5", 1.234e-5, None),
        ("0", 0.0, None),
        ("NaN", float("nan"), None),
    ],
)
def test_digits_follow_the_interval(expected, value, spread):
    """Two digits of the interval's half-width decide; without one, four significant digits."""
    assert expected == formatting.number(value, spread)


def test_interval_is_plus_minus_only_when_centred():
    """An interval of order statistics is printed by its ends."""
    centred = Interval(low=8.0, high=12.0, level=0.95, method="m")
    skewed = Interval(low=9.0, high=14.0, level=0.95, method="m")
    assert "± 2.0" == formatting.around(10.0, centred)
    assert "9.0 to 14.0" == formatting.around(10.0, skewed)


@pytest.mark.parametrize(
    ("expected", "values", "noise"),
    [
        (("11.0", "10.0 to 12.0"), [10.0, 12.0], 0.0),
        (("11", "10 to 12"), [10.0, 12.0], 30.0),
        (("10", ""), [10.0, 10.0], 0.0),
        (("NaN", ""), [10.0, float("nan")], 0.0),
    ],
)
def test_mean_has_no_more_digits_than_its_values(expected, values, noise):
    """Seeds that happen to lie close do not make their numbers sharper than they are."""
    mean, spread, around = formatting.mean_and_range(values, noise)
    assert expected == (formatting.number(mean, spread), around)


def cell(key, execution="lowered", **axes):
    """A cell as plan.json has it."""
    base = {"model": "m", "quantizer": "rtn", "scheme": "W8A8", "backend": "cpu", "seed": "0"}
    return {"key": key, "execution": execution, "axes": {**base, **axes}}


def names_of(cells):
    """Names as text, by key."""
    return {key: str(name) for key, name in short_names(cells).items()}


def test_names_leave_out_what_all_cells_share():
    """Model and seed stand in a name only when they differ."""
    one = [cell("a"), cell("b", execution="full-precision")]
    assert {"a": "rtn W8A8 · cpu", "b": "Full precision"} == names_of(one)
    two = [cell("a"), cell("b", model="n")]
    assert {"a": "m · rtn W8A8 · cpu", "b": "n · rtn W8A8 · cpu"} == names_of(two)


def test_names_stay_unique_through_options_or_keys():
    """Cells that differ only in options say which; cells that differ in nothing else, their key."""
    options = [
        cell("a", quantizer_options='{"ranges":"mse"}'),
        cell("b", quantizer_options='{"ranges":"minmax"}'),
    ]
    assert ["rtn W8A8 · cpu (ranges=mse)", "rtn W8A8 · cpu (ranges=minmax)"] == list(
        names_of(options).values()
    )
    assert 2 == len(set(names_of([cell("0123456789"), cell("abcdefghij")]).values()))


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ("abc123", "HF_TOKEN=abc123 steps=10"),
        ("pa55 word", 'password = "pa55 word"'),
        ("sekrit", '{"api_key": "sekrit"}'),
        ("user:pw", "https://user:pw@example.org/x"),
        ("eyJhbGciOi", "Authorization: Bearer eyJhbGciOi"),
        ("hf_abcdefghijklmnopqrst", "found hf_abcdefghijklmnopqrst there"),
    ],
)
def test_secrets_are_masked(secret, text):
    """Values of secret-like names, URL credentials and well-known token shapes."""
    assert secret not in redact(text)
    assert "[redacted]" in redact(text)


def test_plain_text_is_left_alone():
    """A log without secrets is shown as it is."""
    text = "INFO quantize of cifar10 / rtn W4A8 / cpu: 3.2 s, step 4/10"
    assert text == redact(text)
