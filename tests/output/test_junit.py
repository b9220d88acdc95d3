"""JUnit documents parse, whatever text is in them."""

import xml.etree.ElementTree as ET

from tfq_bench.output.junit import junit


def test_one_case_per_verdict_with_its_kind(verdict, result):
    """Failing, not comparable, not judged and passed are told apart and counted."""
    text = junit(
        result(
            verdict("regressed"),
            verdict("not-comparable"),
            verdict("new", metric=None, rule=""),
            verdict("inconclusive"),
        ),
        name="gate",
    )
    (suite,) = ET.fromstring(text)
    assert {"name": "gate", "tests": "4", "failures": "1", "errors": "1", "skipped": "1"} == dict(
        suite.attrib
    )
    assert ["failure", "error", "skipped", "system-out"] == [case[0].tag for case in suite]
    regressed = suite[0]
    assert ("tiny / rtn W4A8 / cpu", "fd no worse than 2 %") == (
        regressed.get("classname"),
        regressed.get("name"),
    )
    assert "found 103, regressed. Definition: fd@01234567" == regressed[0].text
    assert "regressed" == regressed[0].get("type")
    assert "cell" == suite[2].get("name")


def test_control_characters_and_markup_are_harmless(verdict, result):
    """Logs hold escape sequences; XML cannot."""
    text = junit(result(verdict("failed", message='\x1b[31m<b> & "x"\x00\ud800')), name="a\x01")
    (suite,) = ET.fromstring(text)
    assert r'\x1b[31m<b> & "x"\x00\ud800' == suite[0][0].text
    assert r"a\x01" == suite.get("name")
    text.encode()
