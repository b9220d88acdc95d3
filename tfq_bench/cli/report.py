"""`tfq-bench report`: one file that compares the cells of one or more runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from tfq_bench.errors import NothingToDo, UsageError
from tfq_bench.host.plugins import discover
from tfq_bench.host.table import PluginTable
from tfq_bench.output.rendering import renderer_called, write_report
from tfq_bench.providers import RendererProvider

__all__ = ["HELP", "NAME", "add_arguments", "execute"]

NAME = "report"
HELP = "Write a report of one or more runs."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the run folders, `-o` and `--renderer`."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="file to write; default: report.html in the run folder, or here for several runs",
    )
    parser.add_argument(
        "--renderer",
        metavar="NAME",
        help="which renderer writes it; default: the one for FILE's ending, html without --output",
    )


def execute(args: argparse.Namespace) -> int:
    """Writes the report and prints its path; NothingToDo when no run has a record."""
    from tfq_bench.store.run import RunFolder

    plugins = discover()
    provider = _renderer(plugins, args.renderer, args.output)
    if not any(RunFolder.open(path).records() for path in args.runs):
        raise NothingToDo(
            f"nothing to report: no records in {', '.join(repr(str(path)) for path in args.runs)}. "
            "'tfq-bench run SUITE' makes them."
        )
    target = args.output or _default(args.runs, provider.suffix)
    if target.is_dir():
        raise UsageError(f"expected a file after --output, found the folder '{target}'.")
    write_report(plugins, provider, args.runs, target)
    print(target)
    return 0


def _renderer(plugins: PluginTable, name: str | None, output: Path | None) -> RendererProvider:
    """The renderer asked for, by name or by the ending of the file.

    Raises:
        UsageError: its files have another ending, or no renderer or several have this one; or it
            draws no runs.
    """
    suffix = "" if output is None else output.suffix
    if name is not None or not suffix:
        found = renderer_called(plugins, name or "html", renders="runs")
        if suffix and suffix != found.suffix:
            raise UsageError(
                f"--output '{output}' ends with '{suffix}', and the renderer '{found.name}' writes "
                f"'{found.suffix}' files."
            )
        return found
    every = (plugins.get("renderer", one) for one in plugins.names("renderer"))
    known: list[RendererProvider] = [one for one in every if one.renders == "runs"]
    fit = [provider for provider in known if provider.suffix == suffix]
    if len(fit) != 1:
        endings = ", ".join(sorted({f"'{provider.suffix}'" for provider in known})) or "none"
        several = " and ".join(f"'{provider.name}'" for provider in fit)
        raise UsageError(
            f"--output '{output}': {several} write such files; choose one with --renderer."
            if fit
            else f"--output '{output}': no renderer writes '{suffix}' files; known: {endings}."
        )
    return fit[0]


def _default(runs: list[Path], suffix: str) -> Path:
    folder = runs[0] if len(runs) == 1 else Path()
    return folder / f"report{suffix}"
