"""The temporal features of the finished network, merged from the block's and the cache's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tfq_bench.quant import TemporalCache, exemptions
from tfq_bench_tfmq.cache import quantize_feature
from tfq_bench_tfmq.fsc import calibrate_inputs, with_tables
from tfq_bench_tfmq.selection import disturbance, select_cache

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tfq_bench.quant import FakeQuantNetwork
    from tfq_bench_tfmq.block import TemporalBlock
    from tfq_bench_tfmq.presets import Settings

__all__ = ["TemporalFeatures", "features_fixed", "maintain"]

_log = logging.getLogger("tfq_bench.tfmq")


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporalFeatures:
    """How the temporal features are kept.

    Args:
        features: float32 `[T, C_i]` by projection: what the finished network will add.
        cache: of the projections that are looked up at some step.
    """

    features: Mapping[str, Tensor]
    cache: Mapping[str, TemporalCache]


def maintain(
    block: TemporalBlock, fake_quant: FakeQuantNetwork, settings: Settings
) -> TemporalFeatures:
    """Sets the block's activation tables, and makes what takes its place."""
    held = [name for name in block.layers if name in fake_quant.layers]
    weights = {name: fake_quant.layer(name).pieces[0].effective_weight("hard") for name in held}
    bits = {name: fake_quant.layer(name).bits.abits for name in held}
    tables = calibrate_inputs(block, weights, bits, per_step=settings.fsc)
    for name, table in tables.items():
        fake_quant.layer(name).set_tables([table])
    _, half = exemptions(fake_quant.plan)
    features = block.in_half(half).features(weights, with_tables(tables))
    if settings.maintenance == "block":
        return TemporalFeatures(features=features, cache={})
    exact = block.features()
    caches = {
        name: quantize_feature(
            name, feature, bits=settings.cache_bits, granularity=settings.cache_granularity
        )
        for name, feature in exact.items()
    }
    stored = {name: cache.dequantized() for name, cache in caches.items()}
    chosen = torch.ones((len(block.table), len(exact)), dtype=torch.bool)
    if settings.maintenance == "select":
        chosen = select_cache(
            disturbance(exact, features, settings.error),
            disturbance(exact, stored, settings.error),
            settings.selection,
            ties=block.ties(),
        )
        _tell(chosen, list(exact))
    return _merge(features, caches, stored, chosen)


def _tell(chosen: Tensor, names: Sequence[str]) -> None:
    """Logs what share selection took from the cache: of all entries, by block and by step.

    The metric `temporal` puts the same numbers into records (`temporal-cache-share`).

    Args:
        chosen: bool `[T, n]`. names: of the n projections.
    """
    share = 100 * chosen.double()
    _log.info("selection: cache for %.1f%% of %d features", share.mean(), chosen.numel())
    for kind, of, shares in (
        ("block", names, share.mean(dim=0)),
        ("step", range(len(chosen)), share.mean(dim=1)),
    ):
        each = (f"{name} {value:.0f}%" for name, value in zip(of, shares.tolist(), strict=True))
        _log.info("selection, cache by %s: %s", kind, ", ".join(each))


def _merge(
    features: Mapping[str, Tensor],
    caches: Mapping[str, TemporalCache],
    stored: Mapping[str, Tensor],
    chosen: Tensor,
) -> TemporalFeatures:
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
    return TemporalFeatures(features=merged, cache=cache)


@contextmanager
def features_fixed(fake_quant: FakeQuantNetwork, features: Mapping[str, Tensor]) -> Iterator[None]:
    """Projections give `features` `[T, C_i]` at the cursor's step while the context is open.

    So the blocks around them are learned on what the finished network will add, whatever mode the
    fake_quant layers are in.
    """

    def replace(rows: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return rows.index_select(0, fake_quant.cursor.index).to(output.dtype).expand_as(output)

        return hook

    handles = [
        fake_quant.network.get_submodule(name).register_forward_hook(replace(rows))
        for name, rows in features.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
