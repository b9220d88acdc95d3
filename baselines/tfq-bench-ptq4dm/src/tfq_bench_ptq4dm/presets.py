"""How much is done (presets), and which layers get other bits than asked (policies)."""

from __future__ import annotations

from dataclasses import dataclass

from tfq_bench.quant import POLICIES as SHARED
from tfq_bench.quant import Policy

__all__ = ["PAPER", "POLICIES", "PRESETS", "Preset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Sizes.

    Args:
        samples: calibration samples; the paper has 1,024.
        values: activation values per layer and batch that are searched for a clip.
    """

    samples: int
    values: int


PRESETS = {
    "quick": Preset(samples=64, values=2**13),
    "fast": Preset(samples=256, values=2**15),
    "full": Preset(samples=1024, values=2**17),
}

PAPER = Policy(
    name="paper",
    wbits={"time-mlp": 8, "output": 8},
    abits={"time-mlp": 8, "output": 8},
)
"""The released code gives 8 bits to the first and the last module that it finds and exempts
nothing. In its network the first is the first linear layer of the time MLP; policies go by role,
so here both of the MLP's layers have 8 bits. There activations are quantized behind a layer, here
in front of it."""

POLICIES = (*SHARED, PAPER)
