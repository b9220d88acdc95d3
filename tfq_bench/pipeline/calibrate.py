"""Calibration data: one pass over the full-precision sampler, keeping the states asked for.

T network calls per batch serve any choice of timesteps; restarting the sampler for each timestep
would take T(T+1)/2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from tfq_bench.errors import CalibrationError
from tfq_bench.quant.guidance import branches
from tfq_bench.quant.sampling import SampledBatch
from tfq_bench.types import CalibrationData

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench.types import CalibrationNeeds
    from tfq_bench.types.networks import LoadedModel
    from tfq_bench.types.tasks import Progress

__all__ = ["capture", "load_calibration", "save_calibration"]

FILE = "calibration.safetensors"


@torch.no_grad()
def capture(
    loaded: LoadedModel, needs: CalibrationNeeds, *, seed: int, batch: int, progress: Progress
) -> CalibrationData:
    """The network's inputs x_t that `needs` names, by (step, image), guidance's rows together.

    Args:
        seed: of the initial noise; image `i` has the same noise whatever else is captured.
        batch: images per network call.

    Raises:
        CalibrationError: a step or image that does not exist, or a state that is not finite.
    """
    steps = len(loaded.sampler.timesteps)
    wanted = sorted(set(needs.samples))
    if len(wanted) != len(needs.samples):
        raise CalibrationError("calibration needs name a (step, image) pair twice.")
    if any(not 0 <= step < steps or image < 0 for step, image in wanted):
        raise CalibrationError(
            f"calibration needs name steps outside 0..{steps - 1} or a negative image index."
        )
    images = sorted({image for _, image in wanted})
    needed = set(wanted)
    last = max((step for step, _ in wanted), default=-1)
    states: dict[tuple[int, int], Tensor] = {}
    conditions: dict[int, list[Mapping[str, Tensor]]] = {}
    for start in range(0, len(images), batch):
        chosen = images[start : start + batch]
        sampled = SampledBatch(loaded, chosen, seed=seed, purpose="calibration")
        guided = branches(loaded.model, sampled.condition, device=loaded.device)
        for row, image in enumerate(chosen):
            conditions[image] = [
                {name: value[row] for name, value in branch.items()} for branch in guided
            ]
        for step in range(last + 1):
            x = sampled.network_input()
            for row, image in enumerate(chosen):
                if (step, image) in needed:
                    states[step, image] = x[row].clone()
            if step == last:
                break
            sampled.advance(sampled.predict(loaded.network, x))
            progress((start + len(chosen) * (step + 1) / (last + 1)) / len(images), "calibrating")
    return _assemble(loaded, wanted, states, conditions)


def _assemble(
    loaded: LoadedModel,
    wanted: Sequence[tuple[int, int]],
    states: Mapping[tuple[int, int], Tensor],
    conditions: Mapping[int, Sequence[Mapping[str, Tensor]]],
) -> CalibrationData:
    rows = [(pair, branch) for pair in wanted for branch in conditions[pair[1]]]
    if rows:
        x = torch.stack([states[pair] for pair, _ in rows])
    else:
        x = torch.empty((0, *loaded.model.latent_shape), device=loaded.device)
    if not torch.isfinite(x).all():
        first = next(
            pair for (pair, _), row in zip(rows, x, strict=True) if not row.isfinite().all()
        )
        raise CalibrationError(
            "the full-precision sampler gave values that are not finite, first at step "
            f"{first[0]} of image {first[1]}."
        )
    for pair, branch in rows:
        for name, value in branch.items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise CalibrationError(
                    f"condition '{name}' of image {pair[1]} holds values that are not finite."
                )
    times = [loaded.sampler.timesteps[step] for (step, _), _ in rows]
    whole = all(isinstance(t, int) for t in times)
    names = rows[0][1] if rows else {}
    return CalibrationData(
        x=x,
        timestep=torch.tensor(
            times, dtype=torch.int64 if whole else torch.float32, device=loaded.device
        ),
        step=torch.tensor([pair[0] for pair, _ in rows], dtype=torch.int64, device=loaded.device),
        image=torch.tensor([pair[1] for pair, _ in rows], dtype=torch.int64, device=loaded.device),
        condition={name: torch.stack([branch[name] for _, branch in rows]) for name in names},
    )


def save_calibration(data: CalibrationData, folder: Path) -> None:
    """Writes `calibration.safetensors` into `folder`."""
    tensors = {
        "x": data.x,
        "timestep": data.timestep,
        "step": data.step,
        "image": data.image,
        **{f"condition.{name}": value for name, value in data.condition.items()},
    }
    save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, folder / FILE)


def load_calibration(folder: Path, device: str) -> CalibrationData:
    """What `save_calibration` wrote, on `device`."""
    tensors = load_file(folder / FILE, device=device)
    return CalibrationData(
        x=tensors["x"],
        timestep=tensors["timestep"],
        step=tensors["step"],
        image=tensors["image"],
        condition={
            name.removeprefix("condition."): value
            for name, value in tensors.items()
            if name.startswith("condition.")
        },
    )
