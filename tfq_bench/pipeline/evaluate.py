"""What metrics read of a cell, loaded when first asked for. All of it is read-only.

NumPy refuses to write into the arrays. A tensor that shares their memory does not know that, so
`restore` looks at them again after each metric.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tfq_bench.errors import MetricError
from tfq_bench.keys import digest
from tfq_bench.pipeline.sample import FILE

if TYPE_CHECKING:
    from tfq_bench.pipeline.cell_context import CellContext
    from tfq_bench.plan.plan import PlannedCell
    from tfq_bench.quant.state.quantized_state import QuantizedState
    from tfq_bench.types.networks import LoadedModel, Lowered

__all__ = ["CellInputs", "stored_images", "written_into"]

CACHE = "features"
"""Stage name of what metrics compute once and share: features of a cell's images."""

DATA = frozenset({"builtins", "numpy", "torch"})
"""Modules of values that run nothing; as libraries they count by version, where code imports them.
"""


class CellInputs:
    """An `EvaluationInputs` over the artefacts of one finished cell."""

    def __init__(self, context: CellContext, planned: PlannedCell) -> None:
        self._bench = context
        self._planned = planned
        reference = planned.reference
        self._full = context.plan.find(reference) if reference is not None else None
        self._images: dict[str, np.ndarray] = {}
        self._digests: dict[str, str] = {}
        self._lowered = False

    @property
    def images(self) -> np.ndarray:
        """uint8 `[N, H, W, 3]`, ordered by image index; read-only."""
        return self._load("cell")

    @property
    def reference_images(self) -> np.ndarray | None:
        """The same of the full-precision cell; None when this *is* that cell."""
        return None if self._full is None else self._load("reference")

    @property
    def reference_cell(self) -> str | None:
        """Key of the full-precision cell; None when this *is* that cell."""
        return self._planned.reference

    @property
    def pairing(self) -> str:
        """Id of noise, indices and conditions: equal for cells whose images pair."""
        return digest({"model": self.loaded.model.digest, **self.sampling}, 12)

    @property
    def sampling(self) -> Mapping[str, Any]:
        """Sampler definition, number of images and noise seed."""
        spec = self._bench.plan.spec.sampling
        return {
            "sampler": dict(self.loaded.sampler.definition),
            "images": spec["images"],
            "seed": spec["seed"],
        }

    @property
    def state(self) -> QuantizedState | None:
        """The quantized state, None for full precision."""
        return self._bench.state(self._planned)

    @property
    def loaded(self) -> LoadedModel:
        """The full-precision model."""
        return self._bench.loaded(self._planned)

    def lowered(self) -> Lowered:
        """The cell's network, built anew for each metric that asks for it."""
        self._lowered = True
        return self._bench.lowered(self._planned)

    def facts(self, stage: str) -> Mapping[str, Any]:
        """`result.json` of a finished stage; empty when the cell has no such stage."""
        keys = self._planned.keys
        key = {
            "calibrate": keys.calibrate,
            "quantize": keys.quantize,
            "lower": keys.lower,
            "measure": keys.measure,
        }[stage]
        return {} if key is None else self._bench.store.result(stage, key)

    def cached(self, name: str, compute: Callable[[], np.ndarray], *, of: str) -> np.ndarray:
        """`compute()`, stored under the images it was computed from and the code that computes.

        Args:
            of: `cell` or `reference`, whose images `compute` reads.

        Raises:
            MetricError: images were written into; what is computed from them is not kept.
        """
        samples = self._cell(of).keys.sample
        code = self._bench.code.facts(_modules(compute))
        key = digest({"name": name, "samples": samples, "code": code})
        store = self._bench.store
        if not store.has(CACHE, key):
            with store.create(CACHE, key) as folder:
                value = np.ascontiguousarray(compute())
                if changed := self._changed():
                    raise MetricError(written_into(changed))
                save_file({"value": value}, folder / "value.safetensors")
        return _frozen(load_file(store.open(CACHE, key) / "value.safetensors")["value"])

    def restore(self) -> tuple[str, ...]:
        """Forgets the images that were written into; whose they were, `cell` or `reference`.

        A network that was given away is forgotten in any case.
        """
        if self._lowered:
            self._bench.forget_lowered()
            self._lowered = False
        changed = self._changed()
        for of in changed:
            del self._images[of]
        return changed

    def _changed(self) -> tuple[str, ...]:
        return tuple(
            of for of, images in self._images.items() if _digest(images) != self._digests[of]
        )

    def _cell(self, of: str) -> PlannedCell:
        if of == "cell":
            return self._planned
        assert self._full is not None, "a reference cell has no reference"
        return self._full

    def _load(self, of: str) -> np.ndarray:
        if of not in self._images:
            self._images[of] = _frozen(stored_images(self._bench, self._cell(of)))
            self._digests[of] = _digest(self._images[of])
        return self._images[of]


def written_into(changed: tuple[str, ...]) -> str:
    """What to tell a metric that wrote into these images."""
    return (
        f"it wrote into the images of the {' and the '.join(changed)}, which other metrics read "
        "too; they were loaded again. It must work on a copy."
    )


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _modules(compute: Callable[[], np.ndarray]) -> set[str]:
    """Where a function was written, and the classes of what it holds, such as an extractor."""
    held = [cell.cell_contents for cell in getattr(compute, "__closure__", None) or ()]
    modules = {getattr(compute, "__module__", None) or "", *(type(one).__module__ for one in held)}
    return modules - DATA


def stored_images(context: CellContext, planned: PlannedCell) -> np.ndarray:
    """Every image of a cell, uint8 `[N, H, W, 3]`, ordered by index."""
    shards = [load_file(context.store.open("sample", key) / FILE) for key in planned.keys.sample]
    index = np.concatenate([shard["index"] for shard in shards])
    expected = np.arange(int(context.plan.spec.sampling["images"]))
    assert np.array_equal(index, expected), "shards do not cover the images exactly once"
    return np.concatenate([shard["images"] for shard in shards])
