"""`tfq-bench suites`: the suites that come with the host, to run or to begin one's own with."""

from __future__ import annotations

import argparse
import json

from tfq_bench.errors import UsageError, nearest
from tfq_bench.output.terminal import table
from tfq_bench.plan.suite import load_suite, packaged_suites

__all__ = ["HELP", "NAME", "add_arguments", "execute"]

NAME = "suites"
HELP = "List the packaged suites, or print one, which is how to begin a suite of your own."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `list [--json]` and `show NAME`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|show")
    listing = actions.add_parser("list", help="one line per suite")
    listing.add_argument("--json", action="store_true", help="print JSON for scripts")
    show = actions.add_parser("show", help="print a suite as it is, to a file of your own perhaps")
    show.add_argument("suite", metavar="NAME", help="name of a packaged suite")


def execute(args: argparse.Namespace) -> int:
    """Carries out the action."""
    if args.action == "show":
        packaged = packaged_suites()
        if args.suite not in packaged:
            raise UsageError(
                f"no packaged suite is called '{args.suite}'; {nearest(args.suite, packaged)}"
            )
        print(packaged[args.suite], end="")
        return 0
    suites = [load_suite(name) for name in packaged_suites()]
    if args.json:
        keys = ("name", "summary", "device")
        told = [
            {**{key: getattr(suite, key) for key in keys}, "images": suite.sampling["images"]}
            for suite in suites
        ]
        print(json.dumps(told, indent=2))
        return 0
    rows = [
        (suite.name, suite.device, str(suite.sampling["images"]), suite.summary) for suite in suites
    ]
    print(table(("suite", "device", "images", "what it shows"), rows))
    return 0
