"""Cells that are left out: a line a reason, with the cells that it concerns."""

from types import SimpleNamespace

from tfq_bench.output.skips import skip_lines


def plan_of(*cells):
    """A plan of `(label, why it is left out)`."""
    return SimpleNamespace(
        cells=[SimpleNamespace(cell=SimpleNamespace(label=name), skip=why) for name, why in cells]
    )


def test_a_reason_is_said_once():
    """Nine cells that one backend leaves out are one line, in the plan's order."""
    plan = plan_of(
        ("a / cpu", "no oneDNN"), ("b", None), ("a / cuda", "no GPU"), ("c / cpu", "no oneDNN")
    )
    expected = ["skipped: 2 cells (a / cpu; c / cpu): no oneDNN", "skipped: a / cuda: no GPU"]
    assert expected == skip_lines(plan)


def test_nothing_left_out_says_nothing():
    """A plan whose cells all run has no such line."""
    assert [] == skip_lines(plan_of(("a", None)))


def test_names_and_reasons_of_plugins_are_made_harmless():
    """What would move the cursor or forge a line is shown as its code."""
    (line,) = skip_lines(plan_of(("a\nb", "\x1b[31mred")))
    assert "\n" not in line
    assert "\x1b" not in line
