"""`tfq-bench plugins list`: what is installed, by whom, and what is wrong with it."""

from __future__ import annotations

import argparse
import json
from typing import Any

from tfq_bench.host import PluginInfo, discover

__all__ = ["HELP", "NAME", "add_arguments", "execute"]

NAME = "plugins"
HELP = "List what is installed, and what is wrong with it."

_COLUMNS = ("kind", "name", "provided by", "API", "status")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `list [--json] [--broken]`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list")
    listing = actions.add_parser("list", help="one line per provider")
    listing.add_argument("--json", action="store_true", help="print JSON for scripts")
    listing.add_argument("--broken", action="store_true", help="only plugins that are not ok")


def execute(args: argparse.Namespace) -> int:
    """Prints the listing; 0 whatever it says."""
    plugins = [p for p in discover().plugins if not (args.broken and p.status == "ok")]
    if args.json:
        print(json.dumps([_to_json(plugin) for plugin in plugins], indent=2))
    elif plugins:
        _print_table(plugins)
    else:
        print("Every plugin is ok.")
    return 0


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
        print(f"{plugin.name} ({plugin.source}) is {plugin.status}: {plugin.reason}")


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
