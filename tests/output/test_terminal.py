"""Tables line up, and numbers are short without hiding anything."""

import math

import pytest

from tfq_bench.output.terminal import number, table


def test_columns_line_up():
    """Text to the left, numbers with units to the right."""
    shown = table(("cell", "value"), [("a", "1.5 dB"), ("longer", "12.25 dB"), ("c", "-")])
    assert [
        "cell       value",
        "------  --------",
        "a         1.5 dB",
        "longer  12.25 dB",
        "c              -",
    ] == shown.splitlines()


def test_a_row_stays_one_line():
    """Line breaks and escape sequences in a reason cannot break the table or the terminal."""
    assert r"a b  x\x1b[31m" == table(("h", "i"), [("a\nb", "x\x1b[31m")]).splitlines()[2]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (math.nan, "NaN"),
        (math.inf, "inf"),
        (1.23456, "1.235"),
        (0.000012345, "1.234e-05"),
        (1234567.0, "1,234,567"),
    ],
)
def test_numbers_are_short(value, shown):
    """Bytes keep all digits."""
    assert shown == number(value)


def test_numbers_carry_sign_and_unit():
    """A difference always shows its direction."""
    assert "+1.5 dB" == number(1.5, "dB", signed=True)
