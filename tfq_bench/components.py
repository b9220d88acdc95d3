"""An entry of a suite becomes a component: its provider's options, complete and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfq_bench.border import Component
from tfq_bench.errors import SuiteError
from tfq_bench.providers import OptionValue, Provider, parse_options

if TYPE_CHECKING:
    from tfq_bench.host import PluginTable
    from tfq_bench.suite import Entry, SuiteSpec

__all__ = ["component_of"]

GRID = {"quantizer": ("wbits", "abits", "policy"), "backend": ("optional",)}
"""Keys of an entry that the suite itself reads; every other is an option of the provider."""


def component_of(spec: SuiteSpec, table: PluginTable, kind: str, entry: Entry) -> Component:
    """The component that an entry asks for, with every option and absolute paths.

    Raises:
        SuiteError: unknown provider or option, or a value that is not allowed.
        PluginError: the provider cannot be used.
    """
    provider = table.get(kind, entry.name)
    where, grid = f"[[{kind}]] '{entry.name}'", GRID.get(kind, ())
    given = {key: value for key, value in entry.given.items() if key not in grid}
    known = {option.name for option in provider.options}
    for key in ("schema", "seeds"):  # TOML gives what stands below a table to that table
        if key in given and key not in known:
            raise SuiteError(f"{where}: '{key}' belongs to the top of the file, above every table.")
    options = parse_options(provider.options, given, where, also=grid)
    return Component(name=entry.name, options=_absolute(spec, provider, options))


def _absolute(
    spec: SuiteSpec, provider: Provider, options: dict[str, OptionValue]
) -> dict[str, OptionValue]:
    paths = {option.name for option in provider.options if option.kind == "path"}
    return {
        name: str(spec.folder / str(value)) if name in paths and value else value
        for name, value in options.items()
    }
