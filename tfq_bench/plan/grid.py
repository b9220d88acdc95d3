"""How the axes of a suite multiply, and how far: widths × policies, exclusions, absurd numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from tfq_bench.errors import SuiteError, nearest
from tfq_bench.foreign.text import printable
from tfq_bench.host.wrapping import SIGN
from tfq_bench.plan.suite import Entry, Exclude, SuiteSpec
from tfq_bench.providers import BackendProvider, QuantizerProvider
from tfq_bench.types import FULL_PRECISION, Cell, OptionValue, Scheme, quoted

__all__ = ["matches", "refuse_absurd", "schemes", "unsupported", "variants"]

MAX_CELLS, MAX_SHARDS, MAX_TASKS, MAX_EXCLUDES = 5_000, 20_000, 100_000, 100
"""Beyond these, planning takes longer than seconds."""


def matches(exclude: Exclude, cell: Cell) -> bool:
    """Whether every pattern of an exclusion matches the cell.

    A component written as `distribution:name` matches patterns for either form.
    """
    names = {
        "model": cell.model.name,
        "quantizer": cell.quantizer.name,
        "scheme": cell.scheme.label,
        "backend": cell.backend.name,
    }
    return all(
        fnmatchcase(names[key], pattern) or fnmatchcase(_plain(names[key]), pattern)
        for key, pattern in exclude.patterns.items()
    )


def _plain(name: str) -> str:
    """`ptqd+rtn` of `my-dist:ptqd+rtn`: a component's name without distributions."""
    return SIGN.join(part.rpartition(":")[2] for part in name.split(SIGN))


def schemes(entry: Entry, provider: QuantizerProvider) -> Iterator[Scheme]:
    """Every combination of the entry's wbits, abits and policy, in the order written.

    Raises:
        SuiteError: bits or a policy that the quantizer does not offer.
    """
    where = f"[[quantizer]] '{entry.name}'"
    for wbits in _bits(entry.given.get("wbits", provider.wbits[0]), "wbits", provider.wbits, where):
        for abits in _bits(
            entry.given.get("abits", provider.abits[0]), "abits", provider.abits, where
        ):
            for policy in _listed(entry.given.get("policy", provider.policies[0]), "policy", where):
                if policy not in provider.policies:
                    raise SuiteError(
                        f"{where}: no policy is called {quoted(policy)}; "
                        f"{nearest(str(policy)[:80], provider.policies)}"
                    )
                yield Scheme(wbits=wbits, abits=abits, policy=policy)


def _bits(value: object, name: str, offered: tuple[int, ...], where: str) -> list[int]:
    values = _listed(value, name, where)
    for bits in values:
        if not isinstance(bits, int) or isinstance(bits, bool) or bits not in offered:
            raise SuiteError(
                f"{where}: {name} must be among {', '.join(map(str, offered))} "
                f"({FULL_PRECISION} is float), found {quoted(bits)}."
            )
    return values


def _listed(value: object, name: str, where: str) -> list[Any]:
    if value == []:
        raise SuiteError(f"{where}: {name} is an empty list; name a value or leave the key out.")
    return value if isinstance(value, list) else [value]


def unsupported(provider: BackendProvider, scheme: Scheme, device: str) -> str | None:
    """Why a backend cannot run a scheme on a device, None when it can."""
    if device not in provider.devices:
        return f"backend '{provider.name}' runs on {', '.join(provider.devices)}, not on {device}"
    for name, bits, offered in (
        ("weights", scheme.wbits, provider.wbits),
        ("activations", scheme.abits, provider.abits),
    ):
        if bits not in offered:
            return (
                f"backend '{provider.name}' has {name} of {', '.join(map(str, offered))} bits, "
                f"not {bits}"
            )
    return None


def variants(cells: Sequence[Cell], defaults: Mapping[str, OptionValue]) -> list[str]:
    """For each cell the options, `name=value`, that tell it from cells of the same label.

    Options at their default are left out, so one of the cells may have none to show. Where two
    components have an option of one name, or values read alike, more is said: the component, and
    how the cell's key begins. No two cells have one label.

    Args:
        defaults: by `component.option`, for instance `rtn.split`.
    """
    seen: dict[str, dict[str, set[OptionValue]]] = {}
    for cell in cells:
        for name, value in _options(cell).items():
            seen.setdefault(cell.label, {}).setdefault(name, set()).add(value)
    shared = {  # options that every cell of the label has, with one value
        label: {name for name, values in options.items() if len(values) == 1}
        for label, options in seen.items()
    }
    shown = [
        {
            name: value
            for name, value in _options(cell).items()
            if value != defaults.get(name) and name not in shared[cell.label]
        }
        for cell in cells
    ]
    choices = []
    for full in (False, True):
        texts = [_text(options, full=full) for options in shown]
        count = Counter((cell.label, text) for cell, text in zip(cells, texts, strict=True))
        choices.append([(text, count[c.label, text]) for c, text in zip(cells, texts, strict=True)])
    return [
        next(
            (text for text, times in texts if times == 1),
            f"{texts[-1][0]}, key {cell.key[:8]}".removeprefix(", "),
        )
        for cell, texts in zip(cells, zip(*choices, strict=True), strict=True)
    ]


def _text(options: Mapping[str, OptionValue], *, full: bool) -> str:
    return ", ".join(
        f"{name if full else name.rpartition('.')[2]}={printable(value)}"
        for name, value in options.items()
    )


def _options(cell: Cell) -> dict[str, OptionValue]:
    return {
        f"{part.name}.{name}": value
        for part in (cell.quantizer, cell.model, cell.backend)
        for name, value in part.options.items()
    }


def refuse_absurd(spec: SuiteSpec, *, shards: int) -> None:
    """SuiteError when so much is asked for that planning it would take minutes."""

    def values(entry: Entry) -> int:
        lists = (entry.given.get(key) for key in ("wbits", "abits", "policy"))
        return math.prod(max(len(one), 1) for one in lists if isinstance(one, list))

    cells = (
        len(spec.models)
        * sum(values(entry) for entry in spec.quantizers)
        * max(len(spec.backends), 1)
        * len(spec.seeds)
    )
    for what, number, most, advice in (
        ("cells", cells, MAX_CELLS, "Make several suites of it."),
        ("shards of a cell", shards, MAX_SHARDS, "Make [sampling] 'shard' larger."),
        ("tasks", cells * shards, MAX_TASKS, "Make [sampling] 'shard' larger."),
        ("numbers", cells * len(spec.metrics), MAX_TASKS, "Make several suites of it."),
        ("exclusions", len(spec.excludes), MAX_EXCLUDES, "Use patterns."),
    ):
        if number > most:
            raise SuiteError(
                f"suite '{spec.name}' asks for up to {number:,} {what}, more than the {most:,} "
                f"that are planned. {advice}"
            )
