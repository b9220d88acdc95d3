"""How much is done (presets), and which layers get other bits than asked (policies)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tfq_bench.quant import UNIFORM
from tfq_bench.quant.policy import PTQ4DM, UNIFORM_TEMPORAL16

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

PAPER = replace(PTQ4DM, name="paper")
"""The released code gives 8 bits to the first and the last module that it finds and exempts
nothing. In its network the first is the first linear layer of the time MLP; policies go by role,
so here both of the MLP's layers have 8 bits."""

POLICIES = (UNIFORM, PAPER, UNIFORM_TEMPORAL16)
