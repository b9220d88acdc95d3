"""`tfq-bench assets`: the files that models and metrics need, what is there, and how to get it.

`fetch` is the only command that downloads.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tfq_bench.assets.declared import Asset, asset_fault, readable_size, sha256_of
from tfq_bench.errors import AssetError, UsageError, nearest
from tfq_bench.host.plugins import discover
from tfq_bench.host.table import PluginTable
from tfq_bench.plan.inventory import Inventory, describe, known_assets, suite_assets
from tfq_bench.plan.suite import load_suite

__all__ = ["HELP", "NAME", "add_arguments", "execute"]

NAME = "assets"
HELP = "List, check and fetch the files that models and metrics need. Only 'fetch' downloads."

_SUITE = "name of a packaged suite, or a .toml file (default: all that plugins know of)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `list`, `check` and `fetch`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|check|fetch")
    listing = actions.add_parser("list", help="what there is, and whether it is on this machine")
    listing.add_argument("suite", nargs="?", metavar="SUITE", help=_SUITE)
    listing.add_argument("--json", action="store_true", help="print JSON for scripts")
    check = actions.add_parser(
        "check",
        help="verify sizes and digests; fails when one is wrong, or when SUITE lacks something",
    )
    check.add_argument("suite", nargs="?", metavar="SUITE", help=_SUITE)
    check.add_argument("--json", action="store_true", help="print JSON for scripts")
    fetch = actions.add_parser("fetch", help="download what is missing or damaged")
    fetch.add_argument("names", nargs="*", metavar="NAME", help="as 'assets list' prints it")
    fetch.add_argument(
        "--suite", metavar="SUITE", help="what this suite needs; with NAME, only that of it"
    )


def execute(args: argparse.Namespace) -> int:
    """Carries out the action; 0, or 2 when `check` finds a fault."""
    table = discover()
    actions = {"list": _list, "check": _check, "fetch": _fetch}
    return actions[args.action](args, table)


def _inventory(suite: str | None, table: PluginTable) -> Inventory:
    return known_assets(table) if suite is None else suite_assets(load_suite(suite), table)


def _list(args: argparse.Namespace, table: PluginTable) -> int:
    inventory = _inventory(args.suite, table)
    states = {asset: "missing" if asset.path is None else "present" for asset in inventory}
    if args.json:
        _print_json(inventory, states)
        return 0
    if not inventory:
        print("Nothing is needed that does not come with an installed package.")
        return 0
    from tfq_bench.output.terminal import table as aligned

    headers = ["name", "state", "size", "digest", "licence", "for"]
    rows = [
        [
            asset.name,
            states[asset],
            readable_size(asset.size),
            asset.digest_state,
            asset.licence or "unknown",
            ", ".join(users),
        ]
        for asset, users in inventory.items()
    ]
    print(aligned(headers, rows))
    _advise([asset for asset in inventory if asset.path is None], args.suite)
    return 0


def _check(args: argparse.Namespace, table: PluginTable) -> int:
    inventory = _inventory(args.suite, table)
    states = {asset: _state(asset) for asset in inventory}
    faulty = [asset for asset, state in states.items() if state.startswith("damaged")]
    missing = [asset for asset in inventory if asset.path is None]
    if args.json:
        _print_json(inventory, states)
    else:
        for asset, state in states.items():
            print(f"{asset.name}: {state}")
        if not inventory:
            print("Nothing is needed that does not come with an installed package.")
        _advise([*faulty, *missing], args.suite)
    # Nobody needs all that plugins know of: only a suite can lack something.
    return AssetError.exit_code if faulty or (missing and args.suite) else 0


def _state(asset: Asset) -> str:
    if asset.path is None:
        return "missing"
    fault = asset_fault(asset)
    if fault:
        return f"damaged: {fault}"
    if asset.digest_state != "unknown":
        return "ok"
    fetched = "as it was fetched" if asset.kind == "hub" else "present"
    return f"ok; {fetched}, but nobody has pinned what it should be"


def _fetch(args: argparse.Namespace, table: PluginTable) -> int:
    from tfq_bench.assets.fetching import fetch

    if not args.names and not args.suite:
        raise UsageError("assets fetch: name what to fetch, or a suite with --suite.")
    chosen = _chosen(args, table)
    if not chosen:
        print("Nothing is needed that does not come with an installed package.")
    for asset in chosen:
        if asset.path is not None and not asset_fault(asset):
            print(f"{asset.name}: already at {asset.path}")
            continue
        print(f"{asset.name}: fetching {describe(asset)}", flush=True)
        with _progress(asset) as progress:
            found = fetch(asset, look=_look(asset, args, table), progress=progress)
        print(f"{asset.name}: {_summary(found)}")
    return 0


def _chosen(args: argparse.Namespace, table: PluginTable) -> list[Asset]:
    """In the order of the names; without names everything the suite needs."""
    inventory = _inventory(args.suite, table)
    if not args.names:
        return list(inventory)
    by_name: dict[str, list[Asset]] = {}
    for asset in inventory:
        by_name.setdefault(asset.name, []).append(asset)
    chosen = []
    for name in dict.fromkeys(args.names):
        if name not in by_name:
            of = f"of suite '{args.suite}' " if args.suite else ""
            raise UsageError(f"no asset {of}is called '{name}'; {nearest(name, by_name)}")
        if len(by_name[name]) > 1:
            sources = " and ".join(asset.source for asset in by_name[name])
            raise UsageError(
                f"several assets are called '{name}' ({sources}); block one of the plugins "
                "with --block."
            )
        chosen += by_name[name]
    return chosen


def _look(asset: Asset, args: argparse.Namespace, table: PluginTable) -> Callable[[], Asset]:
    """Asks the plugins again, and finds the asset whose path alone may have changed."""
    wanted = replace(asset, path=None)

    def look() -> Asset:
        inventory = _inventory(args.suite, table)
        return next(found for found in inventory if replace(found, path=None) == wanted)

    return look


def _summary(asset: Asset) -> str:
    if asset.kind == "hub" or asset.path is None:
        return f"at {asset.path}"
    digest = "as expected" if len(asset.sha256) == 64 else "not pinned, or not in full"
    return f"at {asset.path}, SHA-256 {sha256_of(asset.path)} ({digest})"


@contextlib.contextmanager
def _progress(asset: Asset) -> Iterator[Callable[[int, int | None], None]]:
    """A line that is written over, on a terminal only; the hub's client has bars of its own."""
    if asset.kind == "hub" or not sys.stderr.isatty():
        yield lambda *_: None
        return

    def show(done: int, total: int | None) -> None:
        of = f" of {readable_size(total)}" if total else ""
        text = f"\r{asset.name}: {readable_size(done)}{of}  "
        print(text, end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        print(file=sys.stderr)


def _advise(wanting: list[Asset], suite: str | None) -> None:
    if not wanting:
        return
    print()
    if suite is not None:
        for asset in wanting:
            print(f"{asset.name}: {describe(asset)}.{f' {asset.advice}' if asset.advice else ''}")
    names = "NAME" if suite is None else f"--suite {suite}"
    print(f"Fetch with 'tfq-bench assets fetch {names}'.")


def _print_json(inventory: Inventory, states: dict[Asset, str]) -> None:
    found: list[dict[str, Any]] = [
        {
            "name": asset.name,
            "what": asset.what,
            "kind": asset.kind,
            "state": states[asset].partition(":")[0].partition(";")[0],
            "fault": states[asset].partition(": ")[2],
            "path": None if asset.path is None else str(asset.path),
            "source": asset.source,
            "revision": asset.revision,
            "size": asset.size,
            "sha256": asset.sha256,
            "licence": asset.licence,
            "for": list(users),
        }
        for asset, users in inventory.items()
    ]
    print(json.dumps(found, indent=2))
