"""The temporal features of the finished network, merged from the block's and the cache's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tfq_bench.quant.cached import TemporalCache

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tfq_bench.quant.working import WorkingNetwork

__all__ = ["Maintained", "features_fixed", "merge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintained:
    """How the temporal features are kept.

    Args:
        features: float32 `[T, C_i]` by projection: what the finished network will add.
        cache: of the projections that are looked up at some step.
    """

    features: Mapping[str, Tensor]
    cache: Mapping[str, TemporalCache]


def merge(
    features: Mapping[str, Tensor],
    caches: Mapping[str, TemporalCache],
    stored: Mapping[str, Tensor],
    chosen: Tensor,
) -> Maintained:
    """Rows of the cache where `chosen` `[T, n]`, the block's features elsewhere."""
    merged: dict[str, Tensor] = {}
    cache: dict[str, TemporalCache] = {}
    for column, (name, feature) in enumerate(features.items()):
        selected = chosen[:, column]
        rows = stored[name].to(feature.device)
        merged[name] = torch.where(selected[:, None].to(feature.device), rows, feature)
        if bool(selected.any()):
            one = caches[name]
            cache[name] = TemporalCache(
                name=name,
                bits=one.bits,
                values=one.values,
                scale=one.scale,
                zero_point=one.zero_point,
                selected=selected.clone(),
            )
    return Maintained(features=merged, cache=cache)


@contextmanager
def features_fixed(working: WorkingNetwork, features: Mapping[str, Tensor]) -> Iterator[None]:
    """Projections give `features` `[T, C_i]` at the cursor's step while the context is open.

    So the blocks around them are learned on what the finished network will add, whatever mode the
    working layers are in.
    """

    def replace(rows: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return rows.index_select(0, working.cursor.index).to(output.dtype).expand_as(output)

        return hook

    handles = [
        working.network.get_submodule(name).register_forward_hook(replace(rows))
        for name, rows in features.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
