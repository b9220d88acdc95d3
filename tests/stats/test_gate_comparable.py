"""Numbers that do not compare: other definitions, hardware, seeds or arithmetic."""

from dataclasses import replace

import pytest

from tfq_bench.errors import NotComparable
from tfq_bench.stats.rules import Rule

from .small_gate import cell, gate, measured, ms, outcomes


def test_other_arithmetic_is_told_and_decides_nothing():
    """Once for all numbers; facts of one side only, and absolute limits, say nothing."""
    one, two = {"threads": "1", "torch": "2"}, {"threads": "2", "torch": "2", "GPU": "none"}
    numbers = measured(1.0), measured(1.0, name="kd")
    base = cell(*(replace(number, arithmetic=one) for number in numbers))
    run = cell(*(replace(number, arithmetic=two) for number in numbers))
    (remark,) = gate(run, base).remarks
    assert remark.startswith("2 numbers were computed in another way: threads 1 -> 2 (baseline ->")
    assert 0 == gate(run, base).exit_code
    assert () == gate(base, base).remarks == gate(cell(*numbers), base).remarks
    assert () == gate(run, base, Rule(kind="at-most", numbers=(2.0,))).remarks


def test_other_seeds_do_not_compare_and_are_told_once():
    """Not as so many missing cells; where only some seeds are missing, those are."""
    base = [
        cell(measured(1.0), measured(1.0, name="kd"), seed=s, backend=b) for s in "01" for b in "xy"
    ]
    run = [cell(measured(1.0), seed="2", backend=b) for b in "xy"]
    result = gate(run, base)
    verdict = next(v for v in result.verdicts if v.outcome == "not-comparable")
    assert (4, "4 cells") == (result.exit_code, verdict.label)
    assert "expected the baseline's (0, 1), found 2" in verdict.message
    assert not any(v.outcome == "missing" for v in result.verdicts)
    fewer = gate(base[:2], base)
    assert (1, 2) == (fewer.exit_code, sum(v.outcome == "missing" for v in fewer.verdicts))


def test_two_cells_of_one_place_are_refused():
    """One of them would hide the other's numbers."""
    with pytest.raises(NotComparable, match="have the same place in the grid"):
        gate([cell(measured(1.0)), cell(measured(9.0), key="other")], measured(1.0))


def test_cells_match_by_axes():
    """A change of code moves a key and must still be gated."""
    result = gate(cell(measured(200.0), key="moved"), cell(measured(100.0), key="was"))
    assert [("fd", "regressed")] == outcomes(result)


def test_other_definitions_do_not_compare():
    """Exit code 4; a regression elsewhere wins with 1."""
    run, base = measured(1.0, images=200), measured(1.0, images=100)
    result = gate(run, base)
    assert [("fd", "not-comparable")] == outcomes(result)
    assert 4 == result.exit_code
    message = result.verdicts[0].message
    assert run.definition in message
    assert base.definition in message
    assert "images (200 and 100)" in message
    worse = gate(cell(run, measured(9.0, name="kd")), cell(base, measured(1.0, name="kd")))
    assert 1 == worse.exit_code
    assert "regressed" == worse.verdicts[0].outcome


TIMES = Rule(metric="ms", kind="no-worse-ratio", numbers=(1.1,))


def test_times_count_only_when_a_rule_names_them():
    """`*` does not name them; their absence does not count either."""
    everything = Rule(kind="no-worse-ratio", numbers=(1.02,))
    for rules in ((), (everything,)):
        result = gate(cell(measured(1.0), ms(9.0)), cell(measured(1.0), ms(1.0)), *rules)
        assert [("fd", "pass")] == outcomes(result)
    assert [("ms", "regressed")] == outcomes(gate(ms(9.0), ms(1.0), TIMES))


@pytest.mark.parametrize("hardware", ["other", None])
def test_times_of_other_hardware_do_not_compare(hardware):
    """Unless the rule says so; quality compares anywhere unless the rule says otherwise."""
    result = gate(ms(1.0, hardware), ms(1.0, hardware and "h"), TIMES)
    assert (4, [("ms", "not-comparable")]) == (result.exit_code, outcomes(result))
    assert "hardware" in result.verdicts[0].message
    anywhere = Rule(metric="ms", kind="no-worse-ratio", numbers=(1.1,), needs_same_hardware=False)
    assert 0 == gate(ms(1.0, hardware), ms(1.0), anywhere).exit_code
    assert 0 == gate(measured(1.0, hardware=hardware), measured(1.0)).exit_code
    here = Rule(kind="no-worse-ratio", numbers=(1.1,), needs_same_hardware=True)
    assert 4 == gate(measured(1.0, hardware=hardware), measured(1.0), here).exit_code
