"""Gate rules: which cells and metrics must keep which limit.

    schema = 1

    [[rule]]
    metric = "fd-*"                    # shell pattern on the metric's name
    cell = "* / rtn * / *"             # shell pattern on the cell's label
    no-worse-than = { ratio = 1.02 }   # or another of the limits below

Limits: `no-worse-than = {ratio}` or `{margin}`, `band = [low, high]`, `at-most`, `at-least`,
`same = {rtol, atol}`, `ignore = true`. A ratio's margin is `(ratio - 1) · |baseline|`.

The last rule that covers a (cell, metric) wins; one that covers nothing fails the gate, because it
is most likely misspelt. In patterns `[` means itself first, since labels have brackets, and opens a
class of characters only where that fits. Below the file's rules lie the built-in ones: no number
with a direction gets worse by more than its definition's margin, or 2 % where it has none; one
without is finite; volatile numbers (times, memory) are not judged. A rule covers volatile numbers
only when its metric pattern is more than `*`, and numbers without a direction only when it is not
`no-worse-than`.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from tfq_bench.errors import SuiteError, locating, nearest
from tfq_bench.foreign.text import printable
from tfq_bench.types import MetricDefinition

__all__ = ["BUILT_IN", "RULE_KEYS", "SCHEMA", "Rule", "fits", "load_rules"]

SCHEMA = 1

Kind = Literal[
    "no-worse",
    "no-worse-ratio",
    "no-worse-margin",
    "band",
    "at-most",
    "at-least",
    "same",
    "ignore",
    "finite",
]

LARGEST = 1e300
"""Limits go this far; beyond it lies what a float cannot hold."""

LIMITS = ("no-worse-than", "band", "at-most", "at-least", "same", "ignore")
RULE_KEYS = ("metric", "cell", *LIMITS, "on-missing", "on-inconclusive", "needs-same-hardware")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One limit for the numbers that it covers.

    Args:
        metric, cell: shell patterns.
        kind: which limit; `no-worse` is the definition's own margin. numbers: its one or two
            numbers: the ratio or margin, low and high of a band, the bound, or rtol and atol; empty
            for `ignore`, `finite` and `no-worse`.
        on_missing: whether a number of the baseline that the run lacks fails the gate.
        on_inconclusive: whether an interval on both sides of the limit fails it.
        needs_same_hardware: None for "only for volatile numbers".
        built_in: True for the rules below the file's.
    """

    metric: str = "*"
    cell: str = "*"
    kind: Kind
    numbers: tuple[float, ...] = ()
    on_missing: Literal["fail", "ignore"] = "fail"
    on_inconclusive: Literal["pass", "fail"] = "pass"
    needs_same_hardware: bool | None = None
    built_in: bool = False

    def covers(self, label: str, definition: MetricDefinition) -> bool:
        """True when the rule says something about this metric of the cell called `label`."""
        if not self.names(label, definition.name):
            return False
        if definition.volatile and self.metric == "*":
            return False
        return definition.direction != "none" or not self.kind.startswith("no-worse")

    def names(self, label: str, metric: str) -> bool:
        """True when both patterns fit, whatever the metric is."""
        return fits(metric, self.metric) and fits(label, self.cell)

    def limit(self, definition: MetricDefinition, reviewed: MetricDefinition | None) -> Rule:
        """The rule with the definition's own margin filled in, where it goes by that.

        Args:
            reviewed: the baseline's definition; the stricter margin of the two counts.
        """
        if self.kind != "no-worse":
            return self
        margins = [d.margin for d in (definition, reviewed) if d and d.margin is not None]
        if not margins:
            return replace(self, kind="no-worse-ratio", numbers=(DEFAULT_RATIO,))
        return replace(self, kind="no-worse-margin", numbers=(min(margins),))

    def same_hardware(self, definition: MetricDefinition) -> bool:
        """True when numbers of other hardware do not compare under this rule."""
        wanted = self.needs_same_hardware
        return definition.volatile if wanted is None else wanted

    @property
    def text(self) -> str:
        """The limit in words, for tables."""
        shown = [f"{number:g}" for number in self.numbers]
        match self.kind:
            case "no-worse-ratio":
                return f"no worse than {(self.numbers[0] - 1) * 100:g} %"
            case "no-worse-margin":
                return f"no worse than {shown[0]}"
            case "band":
                return f"in [{shown[0]}, {shown[1]}]"
            case "same":
                return f"same (rtol {shown[0]}, atol {shown[1]})"
            case "ignore" | "finite":
                return self.kind
            case "no-worse":
                return "no worse than its margin"
            case _:
                return f"{self.kind.replace('-', ' ')} {shown[0]}"


DEFAULT_RATIO = 1.02

BUILT_IN = (
    Rule(kind="finite", on_missing="ignore", built_in=True),
    Rule(kind="no-worse", built_in=True),
)

MAX_BYTES = 1_000_000
"""Far above any file that a person writes; the parser's time and depth grow with it."""


def load_rules(path: Path | None) -> tuple[Rule, ...]:
    """The built-in rules and those of the file, in the order in which later ones win.

    Raises:
        SuiteError: the file cannot be read, or something in it is not as it should be.
    """
    if path is None:
        return BUILT_IN
    with locating(file=path):
        return (*BUILT_IN, *_read(path))


def _read(path: Path) -> list[Rule]:
    try:
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise SuiteError(f"'{path}' has more than the {MAX_BYTES:,} bytes that rules may have.")
        return _parse(path.read_text("utf-8-sig"), path)
    except OSError as error:
        raise SuiteError(f"cannot read the rules '{path}': {error.strerror}.") from None
    except RecursionError:
        raise SuiteError(f"'{path}' is nested too deeply to be rules.") from None
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError among them
        raise SuiteError(f"'{path}' is not TOML: {printable(error, 200)}.") from None


def _parse(text: str, path: Path) -> list[Rule]:
    content = tomllib.loads(text)
    _check_keys(content, ("schema", "rule"), str(path))
    schema = content.get("schema")
    if type(schema) is not int or schema != SCHEMA:
        raise SuiteError(
            f"{path}: expected 'schema = {SCHEMA}', found {_shown(schema)}.",
            key="schema",
            expected=SCHEMA,
            found=schema,
        )
    tables = content.get("rule", [])
    if not isinstance(tables, list):
        raise SuiteError(f"{path}: expected [[rule]] tables, found a single [rule].")
    return [_rule(table, f"{path}, rule {n}") for n, table in enumerate(tables, start=1)]


def fits(name: str, pattern: str) -> bool:
    """True when `pattern` is `name`, or a shell pattern of it."""
    literal = pattern.replace("[", "[[]")
    return name == pattern or fnmatchcase(name, literal) or fnmatchcase(name, pattern)


def _rule(table: Any, where: str) -> Rule:
    if not isinstance(table, dict):
        raise SuiteError(f"{where}: expected a table, found {_shown(table)}.")
    _check_keys(table, RULE_KEYS, where)
    given = [name for name in LIMITS if name in table]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise SuiteError(
            f"{where}: expected exactly one of {', '.join(LIMITS)}, found {found}.",
            expected=", ".join(LIMITS),
            found=found,
        )
    kind, numbers = _limit(given[0], table[given[0]], f"{where}, {given[0]}")
    same_hardware = table.get("needs-same-hardware")
    if same_hardware is not None and not isinstance(same_hardware, bool):
        raise SuiteError(
            f"{where}: 'needs-same-hardware' must be true or false, found {_shown(same_hardware)}.",
            key="needs-same-hardware",
            found=same_hardware,
        )
    return Rule(
        metric=_choice(table, "metric", None, "*", where),
        cell=_choice(table, "cell", None, "*", where),
        kind=kind,
        numbers=numbers,
        on_missing=_choice(table, "on-missing", ("fail", "ignore"), "fail", where),
        on_inconclusive=_choice(table, "on-inconclusive", ("pass", "fail"), "pass", where),
        needs_same_hardware=same_hardware,
    )


def _limit(name: str, value: Any, where: str) -> tuple[Kind, tuple[float, ...]]:
    match name:
        case "no-worse-than":
            table = _table(value, ("ratio", "margin"), where)
            if len(table) != 1:
                raise SuiteError(
                    f"{where}: expected either ratio or margin, found {_shown(value)}."
                )
            if "ratio" in table:
                return "no-worse-ratio", (_float(table["ratio"], f"{where}, ratio", 1.0),)
            return "no-worse-margin", (_float(table["margin"], f"{where}, margin", 0.0),)
        case "band":
            if not isinstance(value, list) or len(value) != 2:
                raise SuiteError(
                    f"{where}: expected [low, high], found {_shown(value)}.", found=value
                )
            low, high = (_float(end, where) for end in value)
            if low > high:
                raise SuiteError(
                    f"{where}: expected low <= high, found {_shown(value)}.", found=value
                )
            return "band", (low, high)
        case "same":
            table = _table(value, ("rtol", "atol"), where)
            tolerances = (_float(table.get(k, 0.0), f"{where}, {k}", 0.0) for k in ("rtol", "atol"))
            return "same", tuple(tolerances)
        case "ignore":
            if value is not True:
                raise SuiteError(f"{where}: expected true, found {_shown(value)}.", found=value)
            return "ignore", ()
        case "at-most":
            return "at-most", (_float(value, where),)
        case _:
            assert name == "at-least"
            return "at-least", (_float(value, where),)


def _table(value: Any, known: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SuiteError(
            f"{where}: expected {{ {known[0]} = ... }}, found {_shown(value)}.", found=value
        )
    _check_keys(value, known, where)
    return value


def _shown(value: Any) -> str:
    return printable(repr(value), 80)


def _float(value: Any, where: str, minimum: float = -math.inf) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not abs(value) < LARGEST or value < minimum:
        wanted = "a finite number" if minimum == -math.inf else f"a number of at least {minimum:g}"
        raise SuiteError(
            f"{where}: expected {wanted}, found {_shown(value)}.", expected=wanted, found=value
        )
    return float(value)


def _choice(
    table: dict[str, Any], name: str, choices: tuple[str, ...] | None, default: str, where: str
) -> Any:
    value = table.get(name, default)
    if not isinstance(value, str) or (choices is not None and value not in choices):
        wanted = "text" if choices is None else " or ".join(map(repr, choices))
        raise SuiteError(
            f"{where}: '{name}' must be {wanted}, found {_shown(value)}.",
            key=name,
            expected=wanted,
            found=value,
        )
    return value


def _check_keys(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in table:
        if name not in known:
            shown = printable(name, 80)
            raise SuiteError(f"{where}: unknown key '{shown}'; {nearest(shown, known)}", key=name)
