"""What a layer policy gives each layer, so that a test can write it down."""

from __future__ import annotations

from collections.abc import Mapping

from tfq_bench.quant import Exempt, LayerBits

__all__ = ["bits_by_layer"]


def bits_by_layer(plan: Mapping[str, LayerBits | Exempt]) -> dict[str, tuple[int, int | None]]:
    """(wbits, abits) by layer; exempt ones have the bits they are kept in, and None."""
    return {
        name: (bits.bits, None) if isinstance(bits, Exempt) else (bits.wbits, bits.abits)
        for name, bits in plan.items()
    }
