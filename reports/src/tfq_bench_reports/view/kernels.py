"""Which kernels a lowered cell ran, at which bit widths, and what fell back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfq_bench_reports.view.types import CellView, Fallback, KernelRow, KernelsView, Share

__all__ = ["kernels_of"]

_LOW_SHARE = "mac-share-low-bit"
_LOW_BITS = 8


def kernels_of(cell: CellView, facts: Mapping[str, Any]) -> KernelsView:
    """The lower stage's facts about a cell, grouped by kernel and by reason.

    Args:
        facts: `result.json` of the lower stage.
    """
    uses: list[Mapping[str, Any]] = list(facts.get("kernels") or [])
    executed: Mapping[str, Any] = facts.get("executed") or {}
    told = (facts.get("external") or {}).get("macs")
    total = float(told) if told else _network_macs(cell, uses)
    grouped: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    reasons: dict[str, list[str]] = {}
    for use in uses:
        grouped.setdefault((use["kernel"], _bits(use)), []).append(use)
        if use["fallback"] is not None:
            reasons.setdefault(str(use["fallback"]), []).append(str(use["layer"]))
    rows = [
        KernelRow(
            kernel=kernel,
            bits=bits,
            layers=len(group),
            share=sum(use["macs"] for use in group) / total,
            calls=int(executed[kernel]) if kernel in executed else None,
        )
        for (kernel, bits), group in grouped.items()
    ]
    return KernelsView(
        cell=cell,
        kernels=tuple(sorted(rows, key=lambda row: (-row.share, row.kernel, row.bits))),
        shares=_shares(uses, total),
        fallbacks=tuple(
            Fallback(reason=reason, layers=tuple(layers))
            for reason, layers in sorted(reasons.items())
        ),
    )


def _shares(uses: list[Mapping[str, Any]], total: float) -> tuple[Share, ...]:
    """Shares by bit width of the kernels, then fallbacks, then what was never quantized."""
    macs: dict[str, float] = {}
    for use in uses:
        name = _bits(use) if use["fallback"] is None else "fallback"
        macs[name] = macs.get(name, 0) + use["macs"]
    rest = total - sum(macs.values())
    low = sorted((name for name in macs if name != "fallback"), key=lambda n: (-macs[n], n))
    found = [Share(name=name, share=macs[name] / total) for name in low]
    if "fallback" in macs:
        found.append(Share(name="fallback", share=macs["fallback"] / total))
    if rest > 1e-6 * total:
        found.append(Share(name="not quantized", share=rest / total))
    return tuple(found)


def _network_macs(cell: CellView, uses: list[Mapping[str, Any]]) -> float:
    """Multiply-accumulates of the whole network, from the low-bit share where it was recorded.

    The facts list quantized layers only, so their sum alone would hide what stayed float.
    """
    listed = float(sum(use["macs"] for use in uses))
    low: float = sum(
        use["macs"]
        for use in uses
        if use["fallback"] is None and max(use["wbits"], use["abits"]) <= _LOW_BITS
    )
    share = cell.metrics.get(_LOW_SHARE)
    if share is not None and share.value > 0 and low:
        return max(listed, low / share.value)
    return listed or 1.0


def _bits(use: Mapping[str, Any]) -> str:
    return f"W{use['wbits']}A{use['abits']}"
