"""Which metrics a report leads with: one of quality, one of closeness, one of speed, one of size.

The choice goes by what metrics say about themselves; a few well-known names only break ties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tfq_bench.api import MetricValue
from tfq_bench_reports.view.tables import family
from tfq_bench_reports.view.types import CellView

__all__ = ["KeyMetrics", "key_metrics"]

_PREFERRED = ("fid", "fd-", "psnr", "lpips", "trajectory-", "latency", "size-", "packed-")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMetrics:
    """Names of the leading metrics, None where no cell has such a metric.

    Args:
        quality: of images against a reference set. paired: against full precision.
        latency: of a network call. speedup: over full precision in the same round.
        size: bytes of the network.
    """

    quality: str | None
    paired: str | None
    latency: str | None
    speedup: str | None
    size: str | None


def key_metrics(cells: Iterable[CellView]) -> KeyMetrics:
    """The leading metrics of these cells."""
    cells = tuple(cells)

    def pick(fits: Callable[[MetricValue], bool]) -> str | None:
        names = {
            name
            for cell in cells
            for name, value in cell.metrics.items()
            if value.definition.direction != "none" and fits(value)
        }
        return min(names, key=_rank, default=None)

    return KeyMetrics(
        quality=pick(lambda v: family(v) == "quality"),
        # A number over images; errors per sampler step have their own chart.
        paired=pick(lambda v: family(v) == "paired" and v.pairing is not None),
        latency=pick(lambda v: v.definition.volatile and v.definition.unit == "ms"),
        speedup=pick(lambda v: v.definition.volatile and v.definition.unit == "x"),
        size=pick(lambda v: family(v) == "facts" and v.definition.unit == "bytes"),
    )


def _rank(name: str) -> tuple[int, str]:
    known = [place for place, start in enumerate(_PREFERRED) if name.startswith(start)]
    return (known[0] if known else len(_PREFERRED), name)
