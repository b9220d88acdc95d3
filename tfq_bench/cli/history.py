"""`tfq-bench history add|show|plot|bisect`: runs over time in one file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfq_bench.errors import NothingToDo, UsageError, nearest
from tfq_bench.foreign.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tfq_bench.provenance.commits import Commit
    from tfq_bench.store.history import Chosen, HistoryFile
    from tfq_bench.trends.causes import Search
    from tfq_bench.trends.drift import Trend
    from tfq_bench.trends.series import Point, Series

__all__ = ["HELP", "NAME", "add_arguments", "execute"]

NAME = "history"
HELP = (
    "Keep the numbers of many runs in one file: find slow drifts that every gate passed, and say "
    "where and why a number changed. Numbers of different definitions are never compared."
)

EXIT_DRIFT = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `add RUN`, `show [CELL [METRIC]]`, `plot -o FILE` and `bisect CELL METRIC`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="add|show|plot|bisect")
    add = actions.add_parser("add", help="add a run; twice is once")
    add.add_argument("run", type=Path, metavar="RUN", help="run folder")
    add.add_argument(
        "--commit",
        metavar="SHA",
        help="commit that was measured; default: the one checked out where RUN lies, or here",
    )
    add.add_argument(
        "--allow-incomplete", action="store_true", help="leave out cells that are not finished"
    )
    show = actions.add_parser(
        "show", help="print trends, or with METRIC the numbers of every run, and the verdicts"
    )
    _add_choice(show, required=False)
    _add_rules(show)
    show.add_argument(
        "--fail-on-drift", action="store_true", help="exit with 1 when a number has drifted"
    )
    show.add_argument("--json", action="store_true", help="print JSON for scripts")
    plot = actions.add_parser("plot", help="draw trends, as one HTML file without JavaScript")
    _add_choice(plot, required=False)
    _add_rules(plot)
    plot.add_argument("-o", "--output", type=Path, default=Path("history.html"), metavar="FILE")
    plot.add_argument(
        "--renderer", default="history", metavar="NAME", help="which renderer draws (history)"
    )
    bisect = actions.add_parser("bisect", help="say where a number changed, and why")
    _add_choice(bisect, required=True)
    bisect.add_argument("--json", action="store_true", help="print JSON for scripts")
    bisect.add_argument(
        "--repo", type=Path, metavar="PATH", help="print the git bisect between the two commits"
    )
    bisect.add_argument(
        "--command",
        metavar="COMMAND",
        help="for --repo: ends with 0 where the number is good and with 1 where it is not",
    )
    for action in (add, show, plot, bisect):
        action.add_argument(
            "--file", type=Path, default=Path("history.sqlite"), help="default: %(default)s"
        )


def _add_choice(parser: argparse.ArgumentParser, *, required: bool) -> None:
    nargs = None if required else "?"
    default = None if required else "*"
    words = "" if required else "; default: all"
    parser.add_argument(
        "cell", nargs=nargs, default=default, metavar="CELL", help=f"label or shell pattern{words}"
    )
    parser.add_argument("metric", nargs=nargs, metavar="METRIC", help=f"name or pattern{words}")
    parser.add_argument("--suite", default="*", metavar="NAME", help="of this suite only")
    parser.add_argument(
        "--since", metavar="RUN", help="from this run on: its number, or how its commit begins"
    )


def _add_rules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rules", type=Path, metavar="FILE", help="the gate's rules; default: the built-in ones"
    )


def execute(args: argparse.Namespace) -> int:
    """Carries out the action; 1 when `--fail-on-drift` finds a drift."""
    from tfq_bench.store.history import HistoryFile

    file = HistoryFile(args.file)
    match args.action:
        case "add":
            return _add(file, args)
        case "show":
            return _show(file, args)
        case "plot":
            return _plot(file, args)
        case _:
            return _bisect(file, args)


def _add(file: HistoryFile, args: argparse.Namespace) -> int:
    from tfq_bench.store.run import RunFolder

    folder = RunFolder.open(args.run)
    found = file.add(folder, _commit(args), allow_incomplete=args.allow_incomplete)
    added = {0: "no new number", found.numbers: f"{found.numbers} numbers"}.get(
        found.new, f"{found.new} new of {found.numbers} numbers"
    )
    commit = "commit unknown" if found.run.commit is None else f"commit {found.run.commit_text}"
    print(f"{args.file}: run {found.run.number} ({found.run.suite}, {commit}): {added}.")
    for words in found.left_out:
        print(printable(f"note: left out: {words}"))
    return 0


def _commit(args: argparse.Namespace) -> Commit | None:
    from tfq_bench.provenance.commits import COMMIT, Commit, commit_of

    if args.commit is None:
        return commit_of(args.run) or commit_of(Path())
    if not COMMIT.fullmatch(args.commit):
        raise UsageError(
            f"--commit: expected 7 to 64 hexadecimal digits, found '{printable(args.commit, 80)}'."
        )
    return Commit(name=args.commit)


def _show(file: HistoryFile, args: argparse.Namespace) -> int:
    from tfq_bench.output import history, terminal
    from tfq_bench.trends.drift import FALSE_ALARMS, FEWEST

    counts: dict[str, int] = {}
    told: list[dict[str, Any]] = []
    rows, drifts = [], []
    for series, trend in _judged(file, args):
        counts[trend.outcome] = counts.get(trend.outcome, 0) + 1
        rows.append(history.overview_row(series, trend))
        if args.json:
            told.append(history.to_json(series, trend))
        elif args.metric is not None:
            print(f"{history.details(series, trend)}\n")
        elif trend.outcome == "drift":
            drifts.append(f"drift: {series.label}, {series.metric}: {trend.message}")
    code = EXIT_DRIFT if args.fail_on_drift and "drift" in counts else 0
    if args.json:
        print(json.dumps({"schema": 1, "exit_code": code, "series": told}, indent=1))
        return code
    if args.metric is None:
        print(terminal.table(history.OVERVIEW, rows), end="\n\n")
    for words in drifts:
        print(printable(words))
    summary = ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))
    print(
        f"{'Drift found' if 'drift' in counts else 'No drift found'} ({summary}). Judged from "
        f"{FEWEST} runs on; of histories without drift at most {FALSE_ALARMS * 100:g} % ever raise "
        "an alarm."
    )
    return code


def _plot(file: HistoryFile, args: argparse.Namespace) -> int:
    from tfq_bench.host.plugins import discover
    from tfq_bench.output.rendering import renderer_called, write_report

    plugins = discover()
    provider = renderer_called(plugins, args.renderer, renders="history")
    if args.output.suffix != provider.suffix or args.output.is_dir():
        raise UsageError(
            f"expected a file that ends with '{provider.suffix}' after --output, found "
            f"'{args.output}'."
        )
    write_report(plugins, provider, list(_judged(file, args)), args.output)
    print(args.output)
    return 0


def _judged(file: HistoryFile, args: argparse.Namespace) -> Iterator[tuple[Series, Trend]]:
    """The chosen series with their verdicts; NothingToDo when there is none."""
    from tfq_bench.stats.rules import load_rules
    from tfq_bench.trends.drift import trend

    rules = load_rules(args.rules)
    chosen = _chosen(file, args)
    together = file.count(chosen)
    for series in file.series(chosen):
        yield series, trend(series, rules, together=together)


def _chosen(file: HistoryFile, args: argparse.Namespace) -> Chosen:
    """What is asked for.

    Raises:
        UsageError: a name fits nothing, or `--since` names no run.
        NothingToDo: there is nothing since then.
    """
    from tfq_bench.stats.rules import fits
    from tfq_bench.store.history import Chosen

    runs = file.runs()
    labels, metrics = file.names()
    metric = args.metric or "*"
    known = (
        ("cell", args.cell, labels),
        ("metric", metric, metrics),
        ("suite", args.suite, sorted({run.suite for run in runs})),
    )
    for kind, name, names in known:
        if names and not any(fits(one, name) for one in names):
            raise UsageError(
                f"no {kind} in '{args.file}' is called '{printable(name, 200)}'; "
                f"{nearest(name, names)}"
            )
    since = 1
    if args.since is not None:
        since = next(
            (
                run.number
                for run in runs
                if args.since == str(run.number)
                or (len(args.since) >= 4 and (run.commit or "").startswith(args.since))
            ),
            0,
        )
        if not since:
            raise UsageError(
                f"--since: no run in '{args.file}' has the number or commit "
                f"'{printable(args.since, 80)}'; there are 1 to {len(runs)}."
            )
    chosen = Chosen(cell=args.cell, metric=metric, suite=args.suite, since=since)
    if not file.count(chosen):
        raise NothingToDo(f"'{args.file}' has no numbers of this choice.")
    return chosen


def _bisect(file: HistoryFile, args: argparse.Namespace) -> int:
    from tfq_bench.output import history
    from tfq_bench.trends.causes import search

    if (args.repo is None) != (args.command is None):
        raise UsageError("--repo and --command need each other.")
    series = list(file.series(_chosen(file, args)))
    places = {(one.suite, one.label, one.metric): None for one in series}
    if len(places) > 1:
        several = "; ".join(", ".join(place) for place in list(places)[:5])
        raise UsageError(f"expected one metric of one cell, found {len(places)}: {several}.")
    points = sorted((p for one in series for p in one.points), key=lambda p: p.run.number)
    if len(points) < 2:
        raise NothingToDo(f"'{args.file}' has one run of it; two are needed to see a change.")
    found = search(points)
    commands = _commands(args, found, points) if args.repo else []
    if args.json:
        print(json.dumps({**history.search_to_json(found, points), "commands": commands}, indent=1))
        return 0
    print(history.search_text(found, points, series[-1]))
    for command in commands:
        print(command)
    return 0


def _commands(args: argparse.Namespace, found: Search, points: list[Point]) -> list[str]:
    """The git bisect between two runs' commits, to copy.

    Raises:
        UsageError: a commit is unknown, or not in the repository; or the two are one.
    """
    from tfq_bench.provenance.commits import bisect_commands, has_commit

    largest = found.largest
    ends = (points[0], points[-1]) if largest is None else (largest.before, largest.after)
    good, bad = (point.run for point in ends)
    for run in (good, bad):
        if run.commit is None:
            raise UsageError(f"the commit of {run.name} is unknown; git cannot bisect from it.")
        if not has_commit(args.repo, run.commit):
            raise UsageError(f"--repo: run {run.number}'s commit {run.commit} is not there.")
    if good.commit is None or bad.commit is None or good.commit == bad.commit:
        raise UsageError(f"{good.name} and {bad.name} are of one commit; there is none between.")
    return bisect_commands(args.repo, good.commit, bad.commit, args.command)
