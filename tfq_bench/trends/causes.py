"""Where a number changed from run to run, and which of four causes the records point to.

    definition    the metric's definition has another id: the numbers do not compare
    method        code, the version of a distribution that the cell uses, options or the suite's
                  settings are others
    environment   versions of other libraries, processor, GPU or settings of the machine are others,
                  and nothing of the method is
    noise         the difference lies within what two equal runs may differ by

Where method and environment moved at once, or nothing on record did, the cause is `undecided`.

Every pair of neighbouring runs is a test, and the first run against the last is one more. Half of
the share of false alarms is divided among the pairs, the other half is that of the last test, so
that together they find a change in about 5 % of the series without one (Bonferroni), where noise is
normal and as large as interval or steps say, see `steps`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from tfq_bench.errors import NotComparable
from tfq_bench.provenance.ingredients import Moved, moved, shown
from tfq_bench.stats.compare import Delta, delta
from tfq_bench.trends.series import Point
from tfq_bench.trends.steps import widened

__all__ = ["Cause", "Change", "Search", "changes", "evidence", "search"]

Cause = Literal["definition", "method", "environment", "undecided", "noise"]

FALSE_ALARMS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Two runs between which a number changed, or did not (`noise`).

    Args:
        difference: `after - before` with the interval that was judged; None when the definitions
            differ.
        evidence: what moved, in words.
    """

    before: Point
    after: Point
    cause: Cause
    difference: Delta | None
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What was found between the first and the last run.

    Args:
        changes: those larger than noise, oldest first.
        creeping: no single step was; the only change is that from the first to the last run.
    """

    changes: tuple[Change, ...] = ()
    creeping: bool = False

    @property
    def largest(self) -> Change | None:
        """The change to look into first: the largest difference, else the last definition."""
        known = [(abs(c.difference.value), c) for c in self.changes if c.difference is not None]
        if known:
            return max(known, key=lambda pair: pair[0])[1]
        return self.changes[-1] if self.changes else None


def changes(points: Sequence[Point]) -> tuple[Change, ...]:
    """One for each pair of neighbouring runs, in order.

    Args:
        points: of one metric of one cell of a suite, oldest first, of whatever definitions.
    """
    share = FALSE_ALARMS / 2 / max(1, len(points) - 1)
    return tuple(_change(a, b, points, share) for a, b in pairwise(points))


def search(points: Sequence[Point]) -> Search:
    """Where the number changed; see `changes` for `points`, of which there are at least two.

    Where no step is larger than noise, the first and the last run of the last definition are held
    against each other.
    """
    found = tuple(change for change in changes(points) if change.cause != "noise")
    if found:
        return Search(changes=found)
    whole = _change(points[0], points[-1], points, FALSE_ALARMS / 2)
    if whole.cause == "noise":
        return Search()
    return Search(changes=(whole,), creeping=True)


def evidence(before: Point, after: Point) -> tuple[Cause, tuple[str, ...]]:
    """Which cause the records of two runs point to, apart from noise, and what moved."""
    facts = list(_moved(before, after))
    method = tuple(dict.fromkeys(words for kind, words in facts if kind == "method"))
    place = tuple(dict.fromkeys(words for kind, words in facts if kind == "environment"))
    if method and place:
        return "undecided", (*method, *place)
    if method:
        return "method", method
    return ("environment", place) if place else ("undecided", ())


def _change(before: Point, after: Point, points: Sequence[Point], share: float) -> Change:
    cause: Cause = "noise"
    found: tuple[str, ...] = ()
    difference = None
    try:
        if before.measured.definition != after.measured.definition:
            delta(before.measured.metric, after.measured.metric)  # says what differs in this order
        difference = delta(after.measured.metric, before.measured.metric)
    except NotComparable as error:
        cause, found = "definition", (str(error),)
    else:
        values = [point.value for point in _of_definition(points, after)]
        volatile = after.measured.metric.definition.volatile
        difference = widened(difference, values, share / 2, volatile=volatile)
        if not difference.low <= 0 <= difference.high:
            cause, found = evidence(before, after)
    return Change(before=before, after=after, cause=cause, difference=difference, evidence=found)


def _of_definition(points: Sequence[Point], like: Point) -> list[Point]:
    return [p for p in points if p.measured.definition == like.measured.definition]


def _moved(before: Point, after: Point) -> Iterator[tuple[Literal["method", "environment"], str]]:
    """What moved, by the cause that it speaks for.

    What a number is made of decides, where both runs noted it: it leaves out libraries that have no
    part in the number. The environment as a whole is asked where that is not so, or says nothing.
    """
    noted = bool(before.ingredients) and bool(after.ingredients)
    found = moved(before.ingredients, after.ingredients) if noted else ()
    own = {plugin.partition("==")[0] for plugin in (*before.plugins, *after.plugins)}
    for one in found:
        yield _kind(one, own), _words(one)
    if not noted:
        for words in _differences(_versions(before.plugins), _versions(after.plugins)):
            yield "method", words
    if not found:
        for words in _differences(_place(before.environment), _place(after.environment)):
            yield "environment", words


def _kind(one: Moved, own: Iterable[str]) -> Literal["method", "environment"]:
    """`own`: distributions that the cell's components come from."""
    head, _, rest = one.name.partition(" ")
    if one.what == "this machine" or head == "setting":
        return "environment"
    if head == "version" and rest.removeprefix("of ") not in own:
        return "environment"
    return "method"


def _words(one: Moved) -> str:
    """Code is named with what it belongs to: a metric's is no quantizer's."""
    return f"{one.what}: {one.sentence}" if one.name.startswith("code ") else one.sentence


def _versions(plugins: Iterable[str]) -> dict[str, str]:
    return {name: version for name, _, version in (p.partition("==") for p in plugins)}


def _place(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What an environment says of versions and machine, flat; what it lacks is left out."""
    hardware, threads, versions = (
        part if isinstance(part := environment.get(name), Mapping) else {}
        for name in ("hardware", "threads", "versions")
    )
    gpus = hardware.get("gpus")
    flat = {
        "Python": environment.get("python"),
        "CUDA": environment.get("cuda"),
        "GPU driver": environment.get("gpu_driver"),
        "processor": hardware.get("cpu"),
        "cores": hardware.get("usable_cores"),
        "instruction sets": hardware.get("instruction_sets"),
        "GPU": [gpu.get("name") for gpu in gpus] if isinstance(gpus, list) else None,
        "threads": threads.get("torch"),
        **versions,
    }
    return {name: value for name, value in flat.items() if value is not None}


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Facts that both sides state otherwise; where one side states nothing, nothing is known."""
    if before and after:
        for name in dict.fromkeys((*before, *after)):
            if before.get(name) != after.get(name):
                yield f"{name} {shown(before.get(name))} -> {shown(after.get(name))}"
