"""Which suite is asked for, with which values other than in its file, and which of its cells."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tfq_bench.plan.suite import load_suite

if TYPE_CHECKING:
    from tfq_bench.plan.suite import SuiteSpec

__all__ = ["add_suite", "suite_asked"]


def add_suite(parser: argparse.ArgumentParser) -> None:
    """Adds the suite, `--set` and `-k`."""
    parser.add_argument("suite", metavar="SUITE", help="name of a packaged suite, or a .toml file")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another value, as sampling.images=128, model.NAME.guidance=2.0 or seeds=[0,1]; may "
        "be repeated",
    )
    parser.add_argument(
        "-k",
        action="append",
        default=[],
        dest="texts",
        metavar="TEXT",
        help="only cells with this in their label, and full precision; may be repeated",
    )


def suite_asked(args: argparse.Namespace) -> SuiteSpec:
    """The suite with these values.

    Raises:
        SuiteError, UsageError: as for `load_suite`.
    """
    return load_suite(args.suite, args.set)
