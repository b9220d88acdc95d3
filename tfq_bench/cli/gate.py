"""`tfq-bench gate`: fails when a run is worse than its baseline allows."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

__all__ = ["HELP", "NAME", "add_arguments", "execute"]

NAME = "gate"
HELP = (
    "Fail when results are worse than a baseline. Exit codes: 0 passed, 1 worse, failed or "
    "missing, 2 a file that cannot be used or a rule that covers nothing, 4 not comparable, 5 "
    "nothing compared."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the run, the baseline, the rules and where the verdicts go."""
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--baseline", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--rules",
        type=Path,
        metavar="FILE",
        help="TOML; without it, nothing may get worse by more than its metric's margin (2 %% where "
        "it has none), and timings do not count",
    )
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a Markdown table")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--github",
        action="store_true",
        help="print annotations and add to the job summary of GitHub Actions",
    )


def execute(args: argparse.Namespace) -> int:
    """Prints the verdicts and returns the gate's exit code."""
    from tfq_bench.output.github import append_summary, error_lines
    from tfq_bench.output.junit import junit
    from tfq_bench.output.verdicts import to_json, to_markdown, to_text
    from tfq_bench.stats.gate import judge
    from tfq_bench.stats.rules import load_rules
    from tfq_bench.store.baseline import load_baseline, run_facts
    from tfq_bench.store.disk import write_atomically
    from tfq_bench.store.run import RunFolder

    rules = load_rules(args.rules)
    baseline = load_baseline(args.baseline)
    run = RunFolder.open(args.run)
    result = judge(run_facts(run), baseline.cells, rules)
    if args.junit is not None:
        write_atomically(args.junit, junit(result, name=f"tfq-bench gate {baseline.suite}"))
    if args.markdown is not None:
        write_atomically(args.markdown, to_markdown(result))
    if args.github:
        for line in error_lines(result):
            print(line, file=sys.stderr if args.json else sys.stdout)
        summary = os.environ.get("GITHUB_STEP_SUMMARY")
        if summary:
            append_summary(result, Path(summary))
    print(json.dumps(to_json(result), indent=1) if args.json else to_text(result))
    return result.exit_code
