"""What a cell of the grid asks for: components, bits, seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tfq_bench.types.options import OptionValue

__all__ = [
    "FULL_PRECISION",
    "Cell",
    "Component",
    "Execution",
    "Scheme",
]

FULL_PRECISION = 32
"""Bit width that stands for "not quantized"."""

Execution = Literal["full-precision", "simulated", "lowered", "external"]
"""`external`: by the tool that quantized the network, see `protocols.Contestant`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How many bits a cell asks for, and under which layer policy.

    Args:
        wbits, abits: bits of weights and activations, `FULL_PRECISION` for float.
        policy: name of the layer policy (`uniform` or one of the quantizer's own).
    """

    wbits: int = FULL_PRECISION
    abits: int = FULL_PRECISION
    policy: str = "uniform"

    @property
    def label(self) -> str:
        """`"FP"` or, for instance, `"W4A8"`."""
        if self.wbits == self.abits == FULL_PRECISION:
            return "FP"
        return f"W{self.wbits}A{self.abits}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A provider's name together with every option's value, sorted by name.

    Args:
        label: of a metric that stands in a suite beside another of its provider, else empty.
    """

    name: str
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    label: str = ""

    @property
    def title(self) -> str:
        """What it is called among the components of a suite: `kernel-distance:test`."""
        return self.titled(self.name)

    def titled(self, name: str) -> str:
        """`name` with the label behind it, for names that would stand twice without."""
        return f"{name}:{self.label}" if self.label else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One point of the grid: what is quantized, how, and what executes it.

    Args:
        key: content key; equal keys mean equal results.
        seed: of everything random in the cell: calibration draw, rounding, sampling noise is
            *not* among them (noise depends on the suite's sampling seed, so that cells pair).
        variant: what tells it from cells of the same names: options and their values as text.
    """

    key: str
    model: Component
    quantizer: Component
    scheme: Scheme
    backend: Component
    seed: int
    variant: str = ""

    @property
    def label(self) -> str:
        """A short name, unique in a plan: `cifar10 / rtn W4A8 [split=True] / cpu`."""
        seed = f" / seed {self.seed}" if self.seed else ""
        policy = "" if self.scheme.policy == "uniform" else f" ({self.scheme.policy})"
        variant = f" [{self.variant}]" if self.variant else ""
        return (
            f"{self.model.name} / {self.quantizer.name} {self.scheme.label}{policy}{variant} / "
            f"{self.backend.name}{seed}"
        )
