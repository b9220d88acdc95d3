"""The renderer `html`: run folders in, one self-contained file out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from tfq_bench.api import harmless
from tfq_bench.store import RunFolder, write_atomically
from tfq_bench_reports.charts.curves import CurveFigures, curves
from tfq_bench_reports.charts.heatmaps import HeatMaps, heat_maps
from tfq_bench_reports.charts.image_grid import SHOWN, GridView, grids
from tfq_bench_reports.charts.scatters import Figure, scatters
from tfq_bench_reports.view.reader import read_run
from tfq_bench_reports.view.types import RunView
from tfq_bench_reports.view.verdict import Point, verdict

__all__ = ["BUDGET", "HARD_LIMIT", "HtmlRenderer"]

BUDGET = 5_000_000
"""Bytes that a report may take; images are left out of the grid to keep to it."""
HARD_LIMIT = 10_000_000
"""Bytes above which mail viewers and CI artefact previews give up; a warning is logged."""
_TEXT_RESERVE = 1_000_000

log = logging.getLogger("tfq_bench.reports")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    """Everything the templates need for one run; `prefix` keeps ids apart."""

    prefix: str
    view: RunView
    seeded: bool
    verdict: tuple[Point, ...]
    scatters: tuple[Figure, ...]
    curves: CurveFigures | None
    heat: HeatMaps | None
    grids: tuple[GridView, ...]


class HtmlRenderer:
    """Writes the comparison of one or more runs; the same records give the same bytes."""

    def render(self, runs: Sequence[Path], target: Path) -> None:
        """Writes `target`, whole or not at all.

        Raises:
            StoreError: a run cannot be read, or `target` cannot be written.
        """
        images = (BUDGET - _TEXT_RESERVE) // max(1, len(runs))
        sections = [_section(f"r{n}-", RunFolder.open(path), images) for n, path in enumerate(runs)]
        text = (
            environment()
            .get_template("report.html.j2")
            .render(
                title=_title(sections),
                sections=sections,
                shown=SHOWN,
                css=static("report.css"),
                script=static("report.js"),
            )
        )
        size = len(text.encode())
        if size > HARD_LIMIT:
            log.warning(
                "%s takes %.1f MB; many viewers refuse more than %.0f MB. "
                "Report fewer runs at once.",
                target,
                size / 1e6,
                HARD_LIMIT / 1e6,
            )
        elif size > BUDGET:
            log.info("%s takes %.1f MB", target, size / 1e6)
        write_atomically(target, text)


def _section(prefix: str, run: RunFolder, images: int) -> _Section:
    view = read_run(run)
    return _Section(
        prefix=prefix,
        view=view,
        seeded=any(table.each for model in view.models for table in model.tables),
        verdict=verdict(view),
        scatters=scatters(view, prefix),
        curves=curves(view, prefix),
        heat=heat_maps(view, prefix),
        grids=grids(run, view, budget=images),
    )


def _title(sections: Sequence[_Section]) -> str:
    return " and ".join(dict.fromkeys(section.view.name for section in sections))


def environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("tfq_bench_reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown,
    )
    # Charts are made of escaped text by this package; nothing else is ever marked as safe.
    made.filters["drawn"] = Markup
    made.filters["percent"] = _percent
    return made


def _shown(value: object) -> object:
    """What a template prints: no control character of a log, label or name reaches the page."""
    if isinstance(value, Markup):
        return Markup(harmless(str(value)))
    return harmless(value) if isinstance(value, str) else value


def _percent(share: float) -> str:
    return f"{share * 100:.1f}%"


def static(name: str) -> Markup:
    path = resources.files("tfq_bench_reports") / "static" / name
    return Markup(path.read_text("utf-8"))
