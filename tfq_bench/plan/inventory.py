"""Which assets there are: all that installed plugins know of, or those that a suite needs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tfq_bench.assets.declared import Asset, file_fault, identity, readable_size
from tfq_bench.errors import AssetError, TfqError
from tfq_bench.plan.components import component_of
from tfq_bench.providers import Provider
from tfq_bench.types import OptionValue, parse_options

if TYPE_CHECKING:
    from tfq_bench.host.table import PluginTable
    from tfq_bench.plan.suite import SuiteSpec
    from tfq_bench.types import Component

__all__ = ["asset_identities", "known_assets", "require_assets", "suite_assets"]

log = logging.getLogger("tfq_bench.inventory")

Inventory = Mapping[Asset, tuple[str, ...]]
"""Assets and what needs each of them, such as `metric 'frechet'`; both in order of appearance."""


def known_assets(table: PluginTable) -> Inventory:
    """What installed plugins need with their default options, or with one choice made otherwise.

    A plugin that cannot say is logged and left out.
    """
    found: dict[Asset, list[str]] = {}
    for plugin in table.plugins:
        for provider in plugin.providers:
            try:
                for options in _choices(provider):
                    _add(found, table, provider, options)
            except TfqError as error:
                log.warning("assets are left out: %s", error)
    return {asset: tuple(users) for asset, users in found.items()}


def suite_assets(spec: SuiteSpec, table: PluginTable) -> Inventory:
    """What the components of a suite need, without its optional backends.

    Raises:
        SuiteError, PluginError: a component that cannot be used.
    """
    found: dict[Asset, list[str]] = {}
    entries = {
        "model": spec.models,
        "quantizer": spec.quantizers,
        "backend": [entry for entry in spec.backends if not entry.optional],
        "metric": spec.metrics,
    }
    for kind, listed in entries.items():
        for entry in listed:
            component = component_of(spec, table, kind, entry)
            _add(found, table, table.get(kind, entry.name), component.options)
    return {asset: tuple(users) for asset, users in found.items()}


def require_assets(spec: SuiteSpec, table: PluginTable) -> None:
    """Returns when everything that a suite needs is on this machine, with the bytes it is to have.

    Raises:
        AssetError: names all that is missing, what needs it and the command that fetches it; or a
            file that is not what its plugin pinned.
    """
    needed = suite_assets(spec, table)
    for asset in needed:
        if asset.kind == "file" and asset.path is not None and asset.sha256:
            fault = file_fault(asset.path, asset)
            if fault:
                raise AssetError(
                    f"{asset.name}: {asset.path} is not {asset.what}: {fault}. Fetch it with "
                    f"'tfq-bench assets fetch {asset.name}'."
                )
    missing = {asset: users for asset, users in needed.items() if asset.path is None}
    if not missing:
        return
    lines = [
        f"{asset.name}: {describe(asset)}, for {' and '.join(users)}."
        + (f" {asset.advice}" if asset.advice else "")
        for asset, users in missing.items()
    ]
    names = [asset.name for asset in missing]
    everywhere = {asset.name for asset in known_assets(table)}
    what = " ".join(names) if everywhere.issuperset(names) else "--suite SUITE"
    raise AssetError(
        f"suite '{spec.name}' needs what is not on this machine, and no run downloads anything:",
        details=[*lines, f"Fetch it with 'tfq-bench assets fetch {what}'."],
    )


def asset_identities(
    table: PluginTable, provider: Provider, component: Component
) -> dict[str, str]:
    """Digest or commit of each found asset that neither an option nor a pin fixes, by name."""
    given = {str(value) for value in component.options.values()}
    return {
        asset.name: identity(asset)
        for asset in table.assets(provider, component.options)
        if asset.path is not None and len(asset.sha256) < 64 and str(asset.path) not in given
    }


def describe(asset: Asset) -> str:
    """What it is, where it is published, its size and licence, in one line without full stop."""
    where = f"{asset.source} on the hub" if asset.kind == "hub" else asset.source
    revision = f" at {asset.revision}" if asset.revision else ""
    licence = asset.licence or "unknown"
    size = readable_size(asset.size)
    return f"{asset.what} ({where}{revision}, size {size}, licence {licence})"


def _choices(provider: Provider) -> Iterator[Mapping[str, OptionValue]]:
    if not provider.assets:
        return
    where = f"{provider.kind} '{provider.name}'"
    default = parse_options(provider.options, {}, where)
    yield default
    for option in provider.options:
        for choice in option.choices:
            if choice != option.default:
                yield {**default, option.name: choice}


def _add(
    found: dict[Asset, list[str]],
    table: PluginTable,
    provider: Provider,
    options: Mapping[str, OptionValue],
) -> None:
    user = f"{provider.kind} '{provider.name}'"
    for asset in table.assets(provider, options):
        users = found.setdefault(asset, [])
        if user not in users:
            users.append(user)
