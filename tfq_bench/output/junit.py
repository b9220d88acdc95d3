"""JUnit XML: one test case per (cell, rule), which every CI system can show."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from tfq_bench.foreign.text import printable
from tfq_bench.stats.verdicts import GateResult, Verdict

__all__ = ["junit"]


def junit(result: GateResult, *, name: str) -> str:
    """The document; `name` is the test suite's.

    A verdict that fails the gate is a failure, one that is not comparable an error, and one that
    was not held against a limit is skipped.
    """
    suite = ET.Element("testsuite", name=_clean(name), tests=str(len(result.verdicts)))
    counts = {"failure": 0, "error": 0, "skipped": 0}
    for verdict in result.verdicts:
        case = ET.SubElement(
            suite, "testcase", classname=_clean(verdict.label), name=_clean(_title(verdict))
        )
        kind = _kind(verdict)
        if kind is None:
            ET.SubElement(case, "system-out").text = _clean(f"{verdict.outcome}: {verdict.message}")
            continue
        counts[kind] += 1
        attributes = {"message": _clean(f"{verdict.outcome}: {verdict.message}")}
        if kind != "skipped":
            attributes["type"] = verdict.outcome
        ET.SubElement(case, kind, attributes).text = _clean(verdict.message)
    if result.remarks:
        ET.SubElement(suite, "system-out").text = _clean(" ".join(result.remarks))
    suite.set("failures", str(counts["failure"]))
    suite.set("errors", str(counts["error"]))
    suite.set("skipped", str(counts["skipped"]))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _kind(verdict: Verdict) -> str | None:
    if verdict.fails:
        return "failure"
    if verdict.outcome == "not-comparable":
        return "error"
    return "skipped" if verdict.outcome in ("new", "missing") else None


def _title(verdict: Verdict) -> str:
    metric = verdict.metric or "cell"
    return f"{metric} {verdict.rule}" if verdict.rule else metric


def _clean(text: str) -> str:
    """Without what XML 1.0 cannot hold, not even escaped, and what a viewer would act on."""
    return printable(text)
