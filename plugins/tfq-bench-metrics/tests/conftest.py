"""A cell that exists in memory only, and plugins that are thrown away."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from tfq_bench.testing.plugin_host import plugin_host
from tfq_bench.testing.tiny import load_tiny

__all__ = ["plugin_host"]


@dataclass
class FakeInputs:
    """What these metrics read of `EvaluationInputs`; a test sets the parts."""

    images: np.ndarray
    loaded: Any
    reference_images: np.ndarray | None = None
    reference_cell: str | None = None
    pairing: str = "same-noise"
    sampling: dict[str, Any] = field(default_factory=lambda: {"sampler": {"steps": 4}, "seed": 0})


@pytest.fixture
def tiny():
    """The tiny model, loaded, with four sampler steps."""
    return load_tiny(steps=4)


@pytest.fixture
def make_inputs(tiny):
    """Inputs of a full-precision cell of eight images of 32x32, with changes by keyword."""
    coarse = np.random.default_rng(1).integers(0, 256, size=(8, 4, 4, 3))
    images = coarse.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)

    def make(**changes: Any) -> FakeInputs:
        return replace(FakeInputs(images=images, loaded=tiny), **changes)

    return make
