"""Temporal features and how quantization disturbs them (arXiv:2407.19547).

The temporal feature of step t and block i is emb[t, i] = g_i(h(t)): the output of the block's time
projection. It depends on the timestep (and, in some models, on the condition), never on x.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tfq_bench.errors import MetricError, QuantizationError
from tfq_bench.quant.state.temporal_cache import HALF, TemporalCache
from tfq_bench.types.networks import Lowered

if TYPE_CHECKING:
    from tfq_bench.types.networks import LoadedModel

__all__ = ["TemporalErrors", "float16_caches", "temporal_errors", "temporal_features"]


@torch.no_grad()
def temporal_features(
    loaded: LoadedModel,
    network: Lowered | nn.Module,
    *,
    names: Sequence[str] | None = None,
    x: Tensor | None = None,
) -> dict[str, Tensor]:
    """Every time projection's output at every sampler step: float32 `[T, C_i]` on the CPU.

    One network call for one image per step, with the condition of image 0. Empty when the model
    has no time projections.

    Args:
        names: other layers to look at in their place.
        network: a plain network, or a lowered one, whose per-step tables are then followed.
        x: `[1, C, H, W]`, zeros by default; the features do not depend on it.

    Raises:
        MetricError: a projection is gone from the network or did not run.
    """
    names = loaded.topology.time_projections if names is None else names
    if not names:
        return {}
    model, timesteps = loaded.model, loaded.sampler.timesteps
    module = network.network if isinstance(network, Lowered) else network
    seen: dict[str, dict[int, Tensor]] = {name: {} for name in names}
    step = 0

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            # Called again in one step, as DiT's first embedder is, a layer gives the same again.
            seen[name].setdefault(step, output[0].float().cpu())

        return hook

    if x is None:
        x = torch.zeros((1, *model.latent_shape), device=loaded.device)
    condition = model.conditions(range(1), device=loaded.device)
    projections = {name: _find(module, name) for name in names}
    handles = [held.register_forward_hook(keep(name)) for name, held in projections.items()]
    try:
        for step, timestep in enumerate(timesteps):
            if isinstance(network, Lowered):
                network.step.set(step)
            t = torch.full((1,), timestep, device=loaded.device)
            model.predict(module, x, t, condition)
    finally:
        for handle in handles:
            handle.remove()
    for name, rows in seen.items():
        if len(rows) != len(timesteps):
            raise MetricError(
                f"time projection '{name}' must run in every step, found that it ran in "
                f"{len(rows)} of {len(timesteps)} steps."
            )
    return {name: torch.stack(list(rows.values())) for name, rows in seen.items()}


def float16_caches(loaded: LoadedModel) -> dict[str, TemporalCache]:
    """Every time feature's full-precision output in float16, complete: the plainest cache.

    Raises:
        QuantizationError: the model has no time features, or a value is too large for float16.
    """
    features = temporal_features(loaded, loaded.network, names=loaded.topology.time_features)
    if not features:
        raise QuantizationError(
            "a cache of time features needs a model that has some; its topology lists none."
        )
    return {
        name: TemporalCache(
            name=name,
            bits=HALF,
            values=rows.half(),
            scale=None,
            zero_point=None,
            selected=torch.ones(len(rows), dtype=torch.bool),
        )
        for name, rows in features.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TemporalErrors:
    """Disturbance of the temporal features, per step t (row) and block i (column).

    Args:
        names: the time projections, one per column.
        relative: float64 `[T, n]`, ||emb^ - emb|| / ||emb||.
        cosine: float64 `[T, n]`, cosine similarity of emb^ and emb.
        nearest: int64 `[T, n]`, the step whose full-precision feature has the largest cosine with
            emb^[t, i]; t itself when there is no mismatch.
    """

    names: tuple[str, ...]
    relative: Tensor
    cosine: Tensor
    nearest: Tensor

    @property
    def mismatch(self) -> float:
        """Fraction of (t, i) whose quantized feature is closer to another step's."""
        own = torch.arange(len(self.nearest))[:, None]
        return float((self.nearest != own).double().mean())


def temporal_errors(
    reference: Mapping[str, Tensor], features: Mapping[str, Tensor]
) -> TemporalErrors:
    """The disturbance of `features` against the full-precision `reference`.

    Args:
        reference, features: as `temporal_features` returns them, for the same timesteps.

    Raises:
        MetricError: the two differ in projections or shapes, or there are none.
    """
    shapes = {name: tuple(rows.shape) for name, rows in reference.items()}
    found = {name: tuple(rows.shape) for name, rows in features.items()}
    if shapes != found or not shapes:
        raise MetricError(f"temporal features must have shapes {shapes}, found {found}.")
    columns = [_errors(reference[name].double(), features[name].double()) for name in shapes]
    relative, cosine, nearest = (
        torch.stack(values, dim=1) for values in zip(*columns, strict=True)
    )
    return TemporalErrors(names=tuple(shapes), relative=relative, cosine=cosine, nearest=nearest)


def _errors(reference: Tensor, feature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    tiny = torch.finfo(torch.float64).tiny
    relative = (feature - reference).norm(dim=1) / reference.norm(dim=1).clamp(min=tiny)
    unit = reference / reference.norm(dim=1, keepdim=True).clamp(min=tiny)
    unit_feature = feature / feature.norm(dim=1, keepdim=True).clamp(min=tiny)
    similarity = unit_feature @ unit.T
    cosine = similarity.diagonal()
    best, nearest = similarity.max(dim=1)
    # Two steps may have the same feature (repeated timesteps): a tie is no mismatch.
    own = torch.arange(len(reference))
    return relative, cosine, torch.where(cosine >= best, own, nearest)


def _find(network: nn.Module, name: str) -> nn.Module:
    try:
        return network.get_submodule(name)
    except AttributeError as error:
        raise MetricError(f"the network has no time projection '{name}'.") from error
