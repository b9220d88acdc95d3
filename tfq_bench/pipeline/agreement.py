"""Whether kernels agree with their simulation at every step, and for batches as they are sampled.

What runs right for two images at one step may not for sixteen, or at the next: kernels differ by
shape, tables by step, and a network may keep something from one call to the next. All that a run
will use is therefore called before it draws: every step with few rows, every size of batch once.

    every step      `ROWS` equal rows, of which one is simulated; steps are simulated together. A
                    part of the layers with a table of each step is held against its integers too,
                    another part at each step: a neighbour's table is too near to be seen outside.
    a batch         `DISTINCT` images in turn fill it, and only these are simulated. Every row is
                    looked at, and since their number is prime, rows exchanged by powers of two are
                    seen. It is called as the sampler calls it: guided, and watched by nobody.

Not seen is what is wrong for a full batch at another step only, or after more calls than these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from tfq_bench.errors import LoweringError
from tfq_bench.quant.guidance import guided_prediction
from tfq_bench.quant.lower.watched import watched_layers
from tfq_bench.seeds import noise
from tfq_bench.types.networks import Lowered, StepCursor, timestep_tensor

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench.quant.state.quantized_state import QuantizedState
    from tfq_bench.types.networks import LoadedModel

__all__ = ["DRIFT", "Agreement", "largest_difference"]

DRIFT = 2.0
"""How far kernels may drift from their simulation, in distances of that from full precision.

Sums of equal integers in another order move a few values across a rounding border, and each flip
moves more of them later. At worst the two end as independent roundings of one network, which are
the square root of two of those distances apart.
"""

ROWS, DISTINCT, TOGETHER, PARTS = 2, 5, 16, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """How far one row of one call was from its simulation, and what was allowed."""

    step: int
    batch: int
    row: int
    relative: float
    limit: float

    @property
    def share(self) -> float:
        return self.relative / self.limit


@dataclass(slots=True, kw_only=True)
class _Expected:
    """A simulation `[images, ...]`, and how far full precision is from it once that was asked."""

    steps: tuple[int, ...]
    images: tuple[int, ...]
    simulated: Tensor
    apart: list[float] | None = None


class Agreement:
    """Calls of a lowered network, held against the simulation of the same integers.

    Every method raises LoweringError, with step and batch, where they do not agree.
    """

    def __init__(
        self, loaded: LoadedModel, state: QuantizedState, lowered: Lowered, simulated: Lowered
    ) -> None:
        self._loaded, self._state = loaded, state
        self._lowered, self._simulated = lowered, simulated
        self._steps = range(len(loaded.sampler.timesteps))
        self._tables = [
            name
            for name, layer in state.layers.items()
            if any(part.activation and len(part.activation.scale) > 1 for part in layer.parts)
        ]
        self._worst: _Row | None = None
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...]], _Expected] = {}

    @property
    def worst(self) -> Mapping[str, Any] | None:
        """The row that came closest to its limit; None before any call."""
        return None if self._worst is None else asdict(self._worst)

    @torch.no_grad()
    def every_step(self, together: int) -> None:
        """Calls every step of the sampler.

        Args:
            together: steps that are simulated in one call, at most 16.
        """
        size = max(1, min(together, TOGETHER))
        for start in range(0, len(self._steps), size):
            steps = self._steps[start : start + size]
            found = [self._watched(step) for step in steps]
            places = [number for number in range(len(steps)) for _ in range(ROWS)]
            images = [step % DISTINCT for step in steps]
            self._compare(torch.cat(found), ROWS, steps, images, places)

    @torch.no_grad()
    def batch(self, size: int) -> None:
        """Calls one batch of `size` images at the sampler's middle step."""
        step = self._steps[len(self._steps) // 2]
        images = range(min(size, DISTINCT))
        places = [row % DISTINCT for row in range(size)]
        found = self._called(step, places)
        self._compare(found, size, [step] * len(images), images, places)

    def _watched(self, step: int) -> Tensor:
        images = [step % DISTINCT] * ROWS
        layers = self._tables[step % PARTS :: PARTS]
        if not layers:
            return self._called(step, images)
        with watched_layers(self._loaded, self._state, self._lowered, layers=layers):
            return self._called(step, images)

    def _called(self, step: int, images: Sequence[int]) -> Tensor:
        """What the lowered network predicts."""
        found = self._predict(self._lowered, [step], images)
        shape = (len(images), *self._loaded.model.latent_shape)
        if tuple(found.shape) != shape:
            raise LoweringError(
                f"at step {step}, the network's prediction for a batch of {len(images)} is "
                f"expected shape {shape}, found {tuple(found.shape)}.",
                expected=shape,
                found=tuple(found.shape),
            )
        return found

    def _predict(self, of: Lowered, steps: Sequence[int], images: Sequence[int]) -> Tensor:
        """What the sampler would step on: a row for each of `images`, at its own of `steps`."""
        model, device = self._loaded.model, self._loaded.device
        timesteps = [self._loaded.sampler.timesteps[step] for step in steps]
        before = of.step.index
        if len(steps) == 1:
            of.step.set(steps[0])
            t = timestep_tensor(timesteps[0], len(images), device)
        else:  # only the simulation can
            branches = 1 if model.guidance(device=device) is None else 2
            of.step.index = torch.tensor([*steps] * branches, device=device)
            t = torch.cat([timestep_tensor(one, 1, device) for one in timesteps])
        x = noise(0, "parity", images, model.latent_shape, device=device)
        condition = model.conditions(images, device=device)
        try:
            return guided_prediction(model, of.network, x, t, condition)
        finally:
            of.step.index = before

    def _compare(
        self,
        found: Tensor,
        batch: int,
        steps: Sequence[int],
        images: Sequence[int],
        places: Sequence[int],
    ) -> None:
        """Holds row r of `found` against row `places[r]` of a simulation of `steps` and `images`.

        Args:
            batch: how many of the rows were predicted in one call.
        """
        floor = _rounding(self._loaded)
        expected = self._expected(steps, images)
        relative = _relative(found, expected.simulated[list(places)])
        limits = [floor] * len(images)
        if not all(value <= floor for value in relative):
            limits = [max(DRIFT * distance, floor) for distance in self._apart(expected)]
        for number, (value, place) in enumerate(zip(relative, places, strict=True)):
            row = _Row(
                step=steps[place],
                batch=batch,
                row=number % batch,
                relative=value,
                limit=limits[place],
            )
            self._enter(row)

    def _expected(self, steps: Sequence[int], images: Sequence[int]) -> _Expected:
        """The simulation of `steps` and `images`, computed once for batches of any size."""
        key = tuple(steps), tuple(images)
        if key not in self._known:
            simulated = self._predict(self._simulated, steps, images)
            self._known[key] = _Expected(steps=key[0], images=key[1], simulated=simulated)
        return self._known[key]

    def _apart(self, expected: _Expected) -> list[float]:
        """How far full precision is from each row of a simulation."""
        if expected.apart is None:
            full = Lowered(
                network=self._loaded.network,
                step=StepCursor(self._loaded.device),
                execution="full-precision",
            )
            found = self._predict(full, expected.steps, expected.images)
            expected.apart = _relative(found, expected.simulated)
        return expected.apart

    def _enter(self, row: _Row) -> None:
        if not row.relative <= row.limit:
            raise LoweringError(
                f"at step {row.step} (0 to {self._steps[-1]}), for image {row.row} of a batch of "
                f"{row.batch}, the network's prediction is {row.relative:.3g} of its size away "
                f"from the simulation of the same integers, more than {row.limit:.3g}.",
                expected=row.limit,
                found=row.relative,
            )
        if self._worst is None or row.share > self._worst.share:
            self._worst = row


def largest_difference(loaded: LoadedModel, distance: float) -> float:
    """The largest relative difference from the simulation; float rounding where nothing else is.

    Args:
        distance: of the simulation from full precision.
    """
    return max(DRIFT * distance, _rounding(loaded))


def _rounding(loaded: LoadedModel) -> float:
    # In 16 bits a thousand units are the prediction itself; what such a network rounds is part of
    # its distance from full precision anyway.
    return float(min(2.0**10 * torch.finfo(loaded.model.dtype).eps, 2.0**-4))


def _relative(found: Tensor, expected: Tensor) -> list[float]:
    """Root mean square differences of rows, over that of the expected row; NaN where not finite."""
    difference = (found.double() - expected.double()).flatten(1).square().mean(1).sqrt()
    size = expected.double().flatten(1).square().mean(1).sqrt()
    return [d / s if s else d for d, s in zip(difference.tolist(), size.tolist(), strict=True)]
