"""An entry of a suite becomes a component: its provider's options, complete and checked."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tfq_bench.errors import SuiteError, locating
from tfq_bench.foreign.text import printable
from tfq_bench.plan.suite_format import MARKS
from tfq_bench.providers import Provider
from tfq_bench.types import Component, OptionValue, parse_options

if TYPE_CHECKING:
    from tfq_bench.host.table import PluginTable
    from tfq_bench.plan.suite import Entry, SuiteSpec

__all__ = ["LABEL", "component_of"]

LABEL = r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}"

GRID = {
    "quantizer": ("wbits", "abits", "policy"),
    "backend": tuple(MARKS),
    "metric": ("label",),
}
"""Keys of an entry that the suite itself reads; every other is an option of the provider."""


def component_of(spec: SuiteSpec, table: PluginTable, kind: str, entry: Entry) -> Component:
    """The component that an entry asks for, with every option and absolute paths.

    Raises:
        SuiteError: unknown provider or option, or a value that is not allowed.
        PluginError: the provider cannot be used.
    """
    with locating(component=f"{kind} '{entry.name}'"):
        return _component_of(spec, table, kind, entry)


def _component_of(spec: SuiteSpec, table: PluginTable, kind: str, entry: Entry) -> Component:
    provider = table.get(kind, entry.name)
    known = {option.name for option in provider.options}
    where = f"[[{kind}]] '{entry.name}'"
    # A metric's own option of that name keeps its meaning; the others were never free.
    grid = tuple(key for key in GRID.get(kind, ()) if key != "label" or key not in known)
    given = {key: value for key, value in entry.given.items() if key not in grid}
    for key in ("schema", "seeds"):  # TOML gives what stands below a table to that table
        if key in given and key not in known:
            raise SuiteError(
                f"{where}: '{key}' belongs to the top of the file, above every table.", key=key
            )
    options = parse_options(provider.options, given, where, also=grid)
    label = _label(entry.given.get("label", ""), where) if "label" in grid else ""
    return Component(name=entry.name, options=_absolute(spec, provider, options), label=label)


def _label(value: object, where: str) -> str:
    if value == "":
        return ""
    if not isinstance(value, str) or not re.fullmatch(LABEL, value):
        raise SuiteError(
            f"{where}: 'label' stands behind the names of its values, so it must be letters, "
            f"digits, '.', '_' and '-', at most 40, found {printable(repr(value), 80)}.",
            key="label",
            found=value,
        )
    return value


def _absolute(
    spec: SuiteSpec, provider: Provider, options: dict[str, OptionValue]
) -> dict[str, OptionValue]:
    kinds = {option.name: option.kind for option in provider.options}
    found = dict(options)
    for name, value in options.items():
        if kinds[name] == "path" and value:
            found[name] = str(_from_suite(spec, str(value)))
        elif kinds[name] == "source" and value:
            found[name] = _source(spec, str(value), f"{provider.kind} '{provider.name}'")
    return found


def _source(spec: SuiteSpec, value: str, where: str) -> str:
    """The absolute path of what `value` names from the suite's folder on; else `value`, a name."""
    path = _from_suite(spec, value)
    if value.startswith(("/", "./", "../", "~")) or _exists(path):
        return str(path)
    if _exists(Path(value)):
        raise SuiteError(
            f"{where}: option 'source' names {value!r}, which is here but not in the suite's "
            f"folder, {spec.folder}, where relative paths start. Write the path from there, or an "
            "absolute one.",
            key="source",
            found=value,
        )
    return value


def _from_suite(spec: SuiteSpec, value: str) -> Path:
    with contextlib.suppress(RuntimeError):  # `~name` of nobody
        return spec.folder / Path(value).expanduser()
    return spec.folder / value


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False
