"""`tfq-bench plugins`: what is installed, by whom, and what is wrong with it."""

from __future__ import annotations

import argparse
import json
from typing import Any

from tfq_bench.cli import new_plugin
from tfq_bench.errors import UsageError, nearest
from tfq_bench.foreign.text import printable
from tfq_bench.host.inspection import PluginInfo
from tfq_bench.host.plugins import discover
from tfq_bench.host.table import PluginTable
from tfq_bench.providers import Provider

__all__ = ["HELP", "NAME", "add_arguments", "execute"]

NAME = "plugins"
HELP = "List what is installed, and what is wrong with it; or write a plugin of your own."

_COLUMNS = ("kind", "name", "provided by", "API", "status")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `list [--json] [--broken]`, `check [--json] [NAME ...]` and `new KIND NAME`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|check|new")
    listing = actions.add_parser("list", help="one line per provider")
    listing.add_argument("--json", action="store_true", help="print JSON for scripts")
    listing.add_argument("--broken", action="store_true", help="only plugins that are not ok")
    check = actions.add_parser(
        "check",
        help="try every plugin again and look at the factories of its providers; fails when "
        "something is wrong",
    )
    check.add_argument(
        "names", nargs="*", metavar="NAME", help="provider, plugin or distribution (default: all)"
    )
    check.add_argument("--json", action="store_true", help="print JSON for scripts")
    new = actions.add_parser("new", help="write a distribution with a plugin that works as it is")
    new_plugin.add_arguments(new)


def execute(args: argparse.Namespace) -> int:
    """Carries out the action; 0, or 1 when `check` finds a fault."""
    if args.action == "new":
        return new_plugin.execute(args)
    return _check(args) if args.action == "check" else _list(args)


def _list(args: argparse.Namespace) -> int:
    plugins = [p for p in discover().plugins if not (args.broken and p.status == "ok")]
    if args.json:
        print(json.dumps([_to_json(plugin) for plugin in plugins], indent=2))
    elif plugins:
        _print_table(plugins)
    else:
        print("Every plugin is ok. Its factories are not imported for that; 'plugins check' does.")
    return 0


def _check(args: argparse.Namespace) -> int:
    """Discovers everything anew and has each factory imported, in child processes."""
    table = discover(anew=True)
    asked = [
        (plugin, provider)
        for plugin in table.plugins
        for provider in plugin.providers
        if _chosen(plugin, args.names, provider)
    ]
    faulty = [
        plugin
        for plugin in table.plugins
        if plugin.status not in ("ok", "blocked")
        and (_chosen(plugin, args.names) or any(plugin is owner for owner, _ in asked))
    ]
    _refuse_unknown(args.names, table)
    faults = _factory_faults(asked)
    if args.json:
        found = [
            {
                "plugin": plugin.name,
                "distribution": plugin.distribution,
                "kind": provider.kind,
                "name": provider.name,
                "faults": reasons,
            }
            for (plugin, provider), reasons in zip(asked, faults, strict=True)
        ]
        print(json.dumps({"plugins": [_to_json(p) for p in faulty], "factories": found}, indent=2))
    else:
        for (plugin, provider), reasons in zip(asked, faults, strict=True):
            state = f"broken: {' '.join(reasons)}" if reasons else "ok"
            print(f"{provider.kind} '{provider.name}' ({plugin.source}): {state}")
        for plugin in faulty:
            print(_sentence(plugin))
    return 1 if faulty or any(faults) else 0


def _chosen(plugin: PluginInfo, names: list[str], provider: Provider | None = None) -> bool:
    own = {plugin.name, plugin.distribution, plugin.distribution.replace("-", "_")}
    return not names or bool({*own, *([provider.name] if provider else [])} & set(names))


def _refuse_unknown(names: list[str], table: PluginTable) -> None:
    known = {name for p in table.plugins for name in (p.name, p.distribution)}
    known |= {provider.name for plugin in table.plugins for provider in plugin.providers}
    for name in names:
        if name not in known | {one.replace("-", "_") for one in known}:
            raise UsageError(f"nothing is called '{printable(name, 80)}'; {nearest(name, known)}")


def _factory_faults(asked: list[tuple[PluginInfo, Provider]]) -> list[list[str]]:
    from tfq_bench.host.described import to_data
    from tfq_bench.host.discovery.trial import tried

    entries = [
        {"module": plugin.import_name, "provider": to_data(provider)} for plugin, provider in asked
    ]
    return [
        [
            *(printable(reason) for _, reason in answer["faults"]),
            *(f"While it is imported, it {one}." for one in answer["disturbances"]),
        ]
        for answer in tried(entries, check=True)
    ]


def _print_table(plugins: list[PluginInfo]) -> None:
    rows = [_COLUMNS]
    for plugin in plugins:
        rows += [
            (provider.kind, provider.name, plugin.source, str(provider.api), plugin.status)
            for provider in plugin.providers
        ]
        if not plugin.providers:
            rows.append(("plugin", plugin.name, plugin.source, "-", plugin.status))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    faulty = [plugin for plugin in plugins if plugin.status != "ok"]
    if faulty:
        print()
    for plugin in faulty:
        print(_sentence(plugin))


def _sentence(plugin: PluginInfo) -> str:
    return f"{plugin.name} ({plugin.source}) is {plugin.status}: {plugin.reason}"


def _to_json(plugin: PluginInfo) -> dict[str, Any]:
    return {
        "plugin": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "module": plugin.module,
        "status": plugin.status,
        "reason": plugin.reason,
        "providers": [
            {"kind": p.kind, "name": p.name, "summary": p.summary, "api": p.api}
            for p in plugin.providers
        ],
    }
