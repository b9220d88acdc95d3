"""Entry point of the plugin: what it offers, without importing Jinja or numpy."""

from __future__ import annotations

from collections.abc import Iterable

from tfq_bench.api import RendererProvider, hookimpl

__all__ = ["tfq_renderers"]


@hookimpl
def tfq_renderers() -> Iterable[RendererProvider]:
    """The renderers `html` and `history`."""
    return [
        RendererProvider(
            name="html",
            summary="One self-contained HTML file, readable without JavaScript.",
            factory="tfq_bench_reports.renderer:HtmlRenderer",
            suffix=".html",
        ),
        RendererProvider(
            name="history",
            summary="Numbers over time, one self-contained HTML file without JavaScript.",
            factory="tfq_bench_reports.history:HistoryPage",
            suffix=".html",
            renders="history",
        ),
    ]
