"""What moved between two sets of ingredients, which results are made of (`plan.stage_keys`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tfq_bench.foreign.text import printable

__all__ = ["ABSENT", "Moved", "moved", "shown"]

ABSENT = "none"

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One fact that differs.

    Args:
        what: which ingredient: `quantizer 'rtn'`, `suite`, `this machine`, ...
        name: which fact of it: `code of my_package`, `version of torch`, `option steps`, ...
        before, after: the fact's value, None where that side has none.
    """

    what: str
    name: str
    before: Any
    after: Any

    @property
    def sentence(self) -> str:
        """What moved, in words: `torch 2.14.1 -> 2.15.0`."""
        kind, _, rest = self.name.partition(" ")
        if kind == "code":
            return f"{self.name} changed"
        if self.name == "content":
            return f"the content of {self.what} changed"
        if self.name == "definition":
            return f"the sampler's definition of {self.what} changed"
        if kind == "asset":
            return f"the file {rest} of {self.what} changed"
        change = f"{shown(self.before)} -> {shown(self.after)}"
        if kind in ("version", "setting"):
            return f"{rest.removeprefix('of ')} {change}"
        if self.what == "suite":
            return f"{self.name} {change}"
        return f"{self.what}: {rest if kind == 'option' else self.name} {change}"


def moved(
    before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]
) -> tuple[Moved, ...]:
    """What differs in the ingredients that both sides have, in a fixed order.

    Args:
        before, after: ingredients as a plan keeps them, `{"what": ..., fact: value, ...}`.
    """
    old, new = _by_name(before), _by_name(after)
    return tuple(
        Moved(what=what, name=name, before=old[what].get(name), after=new[what].get(name))
        for what in sorted(old.keys() & new.keys())
        for name in sorted(old[what].keys() | new[what].keys())
        if old[what].get(name) != new[what].get(name)
    )


def shown(value: Any) -> str:
    """A fact as a word; the head of a digest, `none` where there is nothing."""
    if value is None or value == "":
        return ABSENT
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:8] if _DIGEST.fullmatch(text) else printable(text, 60)


def _by_name(ingredients: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for one in ingredients:
        content = dict(one)
        found.setdefault(content.pop("what"), {}).update(content)
    return found
