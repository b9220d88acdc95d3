"""Values that are given on the command line are written into a suite's text, comments kept.

So what a run folder stores as its suite is what was run, and workers plan from the same text.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from typing import Any

from tfq_bench.errors import UsageError, nearest
from tfq_bench.foreign.text import printable
from tfq_bench.plan.suite_format import AXES, SECTIONS, absurd

__all__ = ["with_values"]

FORMS = "seeds=VALUE, SECTION.KEY=VALUE or AXIS.NAME.KEY=VALUE, as in sampling.images=128"


def with_values(text: str, assignments: Iterable[str]) -> str:
    """The suite with other values.

    Args:
        text: a valid suite.
        assignments: `seeds=[0, 1]`, `SECTION.KEY=VALUE` or `AXIS.NAME.KEY=VALUE`, where the latter
            holds for every `[[AXIS]]` of that name. A value is TOML, or else text without quotes.

    Raises:
        UsageError: another form, or a name that the suite does not have. Keys and values are for
            `parse_suite` to judge.
    """
    import tomlkit

    document: Any = tomlkit.parse(text)
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        first, *rest = path.strip().split(".", 1)
        if not equals or (first == "seeds") == bool(rest):
            raise _unknown_form(assignment)
        if first == "seeds":
            if first in document:
                document[first] = _value(value)
            else:  # keys of the whole suite stand above its tables
                seeds = tomlkit.item(_value(value)).as_string()
                document = tomlkit.parse(f"seeds = {seeds}\n{tomlkit.dumps(document)}")
        elif first in SECTIONS:
            document.setdefault(first, tomlkit.table())[rest[0]] = _value(value)
        elif first in AXES:
            name, dot, key = rest[0].rpartition(".")
            if not dot:
                raise _unknown_form(assignment)
            tables = [table for table in document.get(first, ()) if table["name"] == name]
            if not tables:
                names = {str(table["name"]) for table in document.get(first, ())}
                raise UsageError(
                    f"--set {printable(assignment, 100)}: the suite has no [[{first}]] "
                    f"'{printable(name, 80)}'; {nearest(name[:80], names)}"
                )
            for table in tables:
                table[key] = _value(value)
        else:
            known = ("seeds", *SECTIONS, *AXES)
            raise UsageError(
                f"--set {printable(assignment, 100)}: unknown '{printable(first, 80)}'; "
                f"{nearest(first[:80], known)}"
            )
    return tomlkit.dumps(document)


def _value(text: str) -> Any:
    if absurd(text):  # before a parser sees it
        return text.strip()
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text.strip()


def _unknown_form(assignment: str) -> UsageError:
    return UsageError(f"--set expects {FORMS}, found '{printable(assignment, 100)}'.")
