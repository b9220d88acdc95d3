"""Property tests in two lengths, short in every test run, long on request, and damage for them.

    @fuzz(40)                      # 40 cases; TFQ_FUZZ=25 makes it 1,000
    @given(damaged(b"0.5"))
    def test_...(content): ...

Cases are drawn from a fixed seed, so that a failure repeats and a pass is no luck of the day.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

__all__ = ["changed", "damaged", "fuzz"]


def fuzz(cases: int, *, shrink: bool = True) -> Callable[[Any], Any]:
    """A decorator that runs a hypothesis test `cases` times, or `TFQ_FUZZ` times as many.

    Args:
        shrink: whether a failing case is made smaller, which runs the test many times more.
    """
    return settings(
        max_examples=cases * int(os.environ.get("TFQ_FUZZ", "1")),
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """`content`, not empty, with bytes changed, lost, doubled or moved, or lines treated so."""
    kinds = ["flip", "cut", "double", "insert", "digit", "end", "line", "swap"]
    kind = draw(st.sampled_from(kinds))
    at = draw(st.integers(0, len(content) - 1))
    size = draw(st.integers(1, 400))
    lines = content.splitlines(keepends=True)
    one, two = (draw(st.integers(0, len(lines) - 1)) for _ in "ab")
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ draw(st.integers(1, 255))]) + content[at + 1 :]
    if kind == "cut":
        return content[:at] + content[at + size :]
    if kind == "double":
        return content[: at + size] + content[at:]
    if kind == "insert":
        return content[:at] + draw(st.binary(min_size=1, max_size=20)) + content[at:]
    digits = [i for i, byte in enumerate(content) if 48 <= byte < 58]
    if kind == "digit" and digits:
        where = draw(st.sampled_from(digits))
        other = b"%d" % ((content[where] - 48 + draw(st.integers(1, 9))) % 10)
        return content[:where] + other + content[where + 1 :]
    if kind == "line":
        return b"".join(
            lines[:one] + lines[one + 1 :] if draw(st.booleans()) else lines[:one] + lines[two:]
        )
    if kind == "swap":
        lines[one], lines[two] = lines[two], lines[one]
        return b"".join(lines)
    return content[:at]


_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(st.characters(exclude_categories=()), max_size=20),
    st.sampled_from(["NaN", "Infinity", "", "../../etc/passwd", "[" * 200, 10**400, -0.0, 1e308]),
    st.just([]),
    st.just({}),
    st.lists(st.integers(), max_size=3),
)


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """JSON with one field anywhere replaced by something odd, left out, or added."""
    value = json.loads(json.dumps(value))
    here = value
    while True:
        if isinstance(here, dict) and here:
            key: Any = draw(st.sampled_from(sorted(here)))
        elif isinstance(here, list) and here:
            key = draw(st.integers(0, len(here) - 1))
        else:
            return value
        if isinstance(here[key], dict | list) and here[key] and draw(st.booleans()):
            here = here[key]
            continue
        kind = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if kind == "remove":
            del here[key]
        elif kind == "add" and isinstance(here, dict):
            here[draw(st.text(max_size=5))] = draw(_ODD)
        else:
            here[key] = draw(_ODD)
        return value
