"""A cell that exists in memory only, and small stand-ins for what metrics read of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfq_bench.host import builtin
from tfq_bench.testing.tiny import TinyModel, load_tiny


@dataclass
class FakeInputs:
    """An `EvaluationInputs` whose parts a test sets."""

    images: np.ndarray
    loaded: Any
    reference_images: np.ndarray | None = None
    reference_cell: str | None = None
    pairing: str = "same-noise"
    sampling: dict[str, Any] = field(default_factory=lambda: {"sampler": {"steps": 4}, "seed": 0})
    state: Any = None
    network: Any = None
    stages: dict[str, Any] = field(default_factory=dict)
    computed: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    def lowered(self):
        return self.network

    def facts(self, stage: str):
        return self.stages.get(stage, {})

    def cached(self, name: str, compute: Callable[[], np.ndarray], *, of: str) -> np.ndarray:
        if (name, of) not in self.computed:
            self.computed[name, of] = compute()
        return self.computed[name, of]


class ModelWithReference(TinyModel):
    """The tiny model with a file of reference statistics."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def reference(self, extractor: str) -> Path | None:
        return self.path


def random_images(seed: int, n: int, size: int = 32) -> np.ndarray:
    """uint8 `[n, size, size, 3]`, smooth enough to have different features."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, size=(n, 4, 4, 3))
    return coarse.repeat(size // 4, axis=1).repeat(size // 4, axis=2).astype(np.uint8)


@pytest.fixture
def tiny():
    """The tiny model, loaded, with four sampler steps."""
    return load_tiny(steps=4)


@pytest.fixture
def make_inputs(tiny):
    """Inputs of a full-precision cell of eight images, with changes by keyword."""

    def make(**changes: Any) -> FakeInputs:
        return replace(FakeInputs(images=random_images(1, 8), loaded=tiny), **changes)

    return make


@pytest.fixture(scope="session")
def host_metric():
    """A function that makes a metric of the host; other options are its provider's defaults."""

    def make(name: str, **options: Any) -> Any:
        (provider,) = (one for one in builtin.tfq_metrics() if one.name == name)
        module, _, factory = provider.factory.partition(":")
        defaults = {option.name: option.default for option in provider.options}
        return getattr(import_module(module), factory)(**{**defaults, **options})

    return make


@pytest.fixture(scope="session")
def reference_images() -> np.ndarray:
    """The 40 images that `reference_file` describes."""
    return random_images(2, 40)


@pytest.fixture(scope="session")
def reference_file(tmp_path_factory, reference_images) -> Path:
    """Statistics of `reference_images` under EfficientNet-Lite0."""
    from tfq_bench.metrics.extractors import efficientnet_lite0
    from tfq_bench.metrics.reference import ReferenceStatistics

    network = efficientnet_lite0()
    features = network.features(reference_images, device="cpu")
    path = tmp_path_factory.mktemp("reference") / "reference.safetensors"
    ReferenceStatistics.of(features, network, {"data": "random"}).save(path)
    return path


@pytest.fixture
def with_reference(make_inputs, tiny, reference_file):
    """Inputs of a full-precision cell whose model ships `reference_file`."""
    return make_inputs(loaded=replace(tiny, model=ModelWithReference(reference_file)))
