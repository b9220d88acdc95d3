"""Gate rules: which cells and metrics must keep which limit.

    schema = 1

    [[rule]]
    metric = "fd-*"                    # shell pattern on the metric's name
    cell = "* / rtn * / *"             # shell pattern on the cell's label
    no-worse-than = { ratio = 1.02 }   # or another of the limits below

Limits: `no-worse-than = {ratio}` or `{margin}`, `band = [low, high]`, `at-most`, `at-least`,
`same = {rtol, atol}`, `ignore = true`. A ratio's margin is `(ratio - 1) · |baseline|`.

The last rule that covers a (cell, metric) wins. Below the file's rules lie the built-in ones: no
number with a direction gets worse by more than 2 %, one without is finite, and volatile numbers
(times, memory) are not judged. A rule covers volatile numbers only when its metric pattern is more
than `*`, and numbers without a direction only when it is not `no-worse-than`.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from tfq_bench.border import MetricDefinition
from tfq_bench.errors import SuiteError, nearest

__all__ = ["BUILT_IN", "RULE_KEYS", "SCHEMA", "Rule", "load_rules"]

SCHEMA = 1

Kind = Literal[
    "no-worse-ratio", "no-worse-margin", "band", "at-most", "at-least", "same", "ignore", "finite"
]

LIMITS = ("no-worse-than", "band", "at-most", "at-least", "same", "ignore")
RULE_KEYS = ("metric", "cell", *LIMITS, "on-missing", "on-inconclusive", "needs-same-hardware")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One limit for the numbers that it covers.

    Args:
        metric, cell: shell patterns.
        kind: which limit. numbers: its one or two numbers: the ratio or margin, low and high of a
            band, the bound, or rtol and atol; empty for `ignore` and
            `finite`.
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
        if not (fnmatchcase(definition.name, self.metric) and fnmatchcase(label, self.cell)):
            return False
        if definition.volatile and self.metric == "*":
            return False
        return definition.direction != "none" or not self.kind.startswith("no-worse")

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
            case _:
                return f"{self.kind.replace('-', ' ')} {shown[0]}"


BUILT_IN = (
    Rule(kind="finite", on_missing="ignore", built_in=True),
    Rule(kind="no-worse-ratio", numbers=(1.02,), built_in=True),
)


def load_rules(path: Path | None) -> tuple[Rule, ...]:
    """The built-in rules and those of the file, in the order in which later ones win.

    Raises:
        SuiteError: the file cannot be read, or something in it is not as it should be.
    """
    if path is None:
        return BUILT_IN
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SuiteError(f"cannot read the rules '{path}': {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SuiteError(f"'{path}' is not TOML: {error}.") from None
    _check_keys(content, ("schema", "rule"), str(path))
    if content.get("schema") != SCHEMA:
        raise SuiteError(f"{path}: expected 'schema = {SCHEMA}', found {content.get('schema')!r}.")
    tables = content.get("rule", [])
    if not isinstance(tables, list):
        raise SuiteError(f"{path}: expected [[rule]] tables, found a single [rule].")
    rules = [_rule(table, f"{path}, rule {n}") for n, table in enumerate(tables, start=1)]
    return (*BUILT_IN, *rules)


def _rule(table: dict[str, Any], where: str) -> Rule:
    _check_keys(table, RULE_KEYS, where)
    given = [name for name in LIMITS if name in table]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise SuiteError(f"{where}: expected exactly one of {', '.join(LIMITS)}, found {found}.")
    kind, numbers = _limit(given[0], table[given[0]], f"{where}, {given[0]}")
    same_hardware = table.get("needs-same-hardware")
    if same_hardware is not None and not isinstance(same_hardware, bool):
        raise SuiteError(
            f"{where}: 'needs-same-hardware' must be true or false, found {same_hardware!r}."
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
                raise SuiteError(f"{where}: expected either ratio or margin, found {value!r}.")
            if "ratio" in table:
                return "no-worse-ratio", (_float(table["ratio"], f"{where}, ratio", 1.0),)
            return "no-worse-margin", (_float(table["margin"], f"{where}, margin", 0.0),)
        case "band":
            if not isinstance(value, list) or len(value) != 2:
                raise SuiteError(f"{where}: expected [low, high], found {value!r}.")
            low, high = (_float(end, where) for end in value)
            if low > high:
                raise SuiteError(f"{where}: expected low <= high, found {value!r}.")
            return "band", (low, high)
        case "same":
            table = _table(value, ("rtol", "atol"), where)
            tolerances = (_float(table.get(k, 0.0), f"{where}, {k}", 0.0) for k in ("rtol", "atol"))
            return "same", tuple(tolerances)
        case "ignore":
            if value is not True:
                raise SuiteError(f"{where}: expected true, found {value!r}.")
            return "ignore", ()
        case "at-most":
            return "at-most", (_float(value, where),)
        case _:
            assert name == "at-least"
            return "at-least", (_float(value, where),)


def _table(value: Any, known: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SuiteError(f"{where}: expected {{ {known[0]} = ... }}, found {value!r}.")
    _check_keys(value, known, where)
    return value


def _float(value: Any, where: str, minimum: float = -math.inf) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < minimum:
        wanted = "a finite number" if minimum == -math.inf else f"a number of at least {minimum:g}"
        raise SuiteError(f"{where}: expected {wanted}, found {value!r}.")
    return float(value)


def _choice(
    table: dict[str, Any], name: str, choices: tuple[str, ...] | None, default: str, where: str
) -> Any:
    value = table.get(name, default)
    if not isinstance(value, str) or (choices is not None and value not in choices):
        wanted = "text" if choices is None else " or ".join(map(repr, choices))
        raise SuiteError(f"{where}: '{name}' must be {wanted}, found {value!r}.")
    return value


def _check_keys(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in table:
        if name not in known:
            raise SuiteError(f"{where}: unknown key '{name}'; {nearest(name, known)}")
