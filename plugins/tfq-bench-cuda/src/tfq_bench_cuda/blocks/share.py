"""What a timestep does to the blocks of DiT and PixArt, computed for all of them together.

In each block of DiT three small layers embed timestep and class anew, which takes longer than the
rest of the block; each of PixArt adds a table to one embedding. That depends on nothing that the
blocks do. So the first block that is called computes it for all, and every block takes its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from tfq_bench.quant import CachedProjection
from tfq_bench_cuda.blocks.ada_transformer import AdaSingleBlock, AdaZeroBlock
from tfq_bench_cuda.blocks.fuse import BlockUse
from tfq_bench_cuda.blocks.fused import Unfusable, needs
from tfq_bench_cuda.blocks.modulations import Modulations
from tfq_bench_cuda.blocks.stacked_layers import StackedLayers, stackable
from tfq_bench_cuda.layers import CudaLayer

__all__ = ["share_modulations"]

_EMBEDDER = "emb.timestep_embedder"


def share_modulations(network: nn.Module, blocks: Sequence[BlockUse]) -> list[BlockUse]:
    """Lets the fused blocks of a network share the computation of their modulations.

    Args:
        blocks: what `fuse` said of the network.

    Returns:
        The same with the layers that are run so, or with a remark why none are.
    """
    passes = {use.name: network.get_submodule(use.name).forward for use in blocks}
    zero = {name: one for name, one in passes.items() if isinstance(one, AdaZeroBlock)}
    single = [one for one in passes.values() if isinstance(one, AdaSingleBlock)]
    if len(single) > 1:
        _install(single, _Tables([one.block for one in single]))
    if len(zero) < 2:
        return list(blocks)
    try:
        embedded = _Embedded([cast(Any, one.block).norm1 for one in zero.values()])
    except Unfusable as reason:
        remark = f"timestep and class are embedded in each block: {reason}"
        return [
            replace(use, remarks=(*use.remarks, remark)) if use.name in zero else use
            for use in blocks
        ]
    shared = _install(list(zero.values()), embedded)
    names = {module: name for name, module in network.named_modules()}
    found = []
    for use in blocks:
        if use.name in zero:
            one = zero[use.name]
            own = [m for m in cast(Any, one.block).norm1.modules() if isinstance(m, CudaLayer)]
            one.layers += tuple(own)
            use = replace(use, layers=(*use.layers, *(names[layer] for layer in own)))
        found.append(use)
    first = next(iter(zero.values()))
    embedding = cast(Any, first.block).norm1.emb
    embedding.forward = _HeldEmbedding(shared, embedding.forward, first)
    return found


def _install(
    blocks: Sequence[AdaZeroBlock | AdaSingleBlock],
    compute: Callable[..., tuple[Tensor, Tensor | None]],
) -> Modulations:
    shared = Modulations(blocks, compute)
    for one in blocks:
        one.shared = shared
    return shared


class _HeldEmbedding:
    """The `forward` of the first block's embedding, which DiT's output layer reads once more."""

    def __init__(
        self, shared: Modulations, forward: Callable[..., Tensor], block: AdaZeroBlock
    ) -> None:
        self._shared, self._forward, self._block = shared, forward, block

    def __call__(
        self, timestep: Tensor, class_labels: Tensor, hidden_dtype: torch.dtype | None = None
    ) -> Tensor:
        held = None
        if not self._block.watched and hidden_dtype is not None:
            held = self._shared.take_embedding(timestep, class_labels, hidden_dtype)
        return self._forward(timestep, class_labels, hidden_dtype) if held is None else held


class _Tables:
    """PixArt's blocks: a table each, added to what the network embeds."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        tables = [cast(Tensor, cast(Any, block).scale_shift_table).detach() for block in blocks]
        self._tables = torch.stack(tables)[:, :, None]

    def __call__(
        self,
        timestep: Tensor,
        labels: Tensor | None,  # noqa: ARG002
        dtype: torch.dtype,  # noqa: ARG002
    ) -> tuple[Tensor, None]:
        """See `Modulations`; timestep is `[B, 6 * C]` here."""
        six = timestep.reshape(len(timestep), 6, -1).transpose(0, 1)
        # A sum has the order in memory of what it is made of, and kernels read rows of a gate.
        return (self._tables + six).float().contiguous(), None


class _Embedded:
    """DiT's blocks: three layers each, those of one place as one kernel.

    Args:
        norms: `AdaLayerNormZero`s whose layers are kernels, or look the timestep's embedding up.

    Raises:
        Unfusable: they differ, or are built in another way.
    """

    def __init__(self, norms: Sequence[Any]) -> None:
        for norm in norms:
            _check(norm)
        self._sines = norms[0].emb.time_proj
        ways = {tuple(sorted(_settings(norm.emb.time_proj).items())) for norm in norms}
        needs(len(ways) == 1, "blocks have other frequencies of the timestep")
        dtype = norms[0].emb.class_embedder.embedding_table.weight.dtype
        cached = [
            isinstance(norm.emb.timestep_embedder.linear_2, CachedProjection) for norm in norms
        ]
        lasts = stackable(norms, "linear")
        self._cache: Tensor | None = None
        if any(cached):
            self._cache = _cached(norms)
        else:
            ones = stackable(norms, f"{_EMBEDDER}.linear_1")
            twos = stackable(norms, f"{_EMBEDDER}.linear_2")
            self._ones = StackedLayers(ones, dtype, shared=True)
            self._twos = StackedLayers(twos, dtype, silu=True)
        self._last = StackedLayers(lasts, dtype, silu=True, out=torch.float32, pieces=6)
        self._step = lasts[0].step
        embeddings = [norm.emb.class_embedder.embedding_table for norm in norms]
        self._classes = torch.stack([embedding.weight.detach() for embedding in embeddings])
        for embedding, rows in zip(embeddings, self._classes, strict=True):
            embedding.weight = nn.Parameter(rows, requires_grad=False)

    def __call__(
        self, timestep: Tensor, labels: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """See `Modulations`."""
        assert labels is not None
        if self._cache is None:
            sines = self._sines(timestep).to(dtype)[None]
            times = self._twos(self._ones(sines).flatten(0, 1)).flatten(0, 1)
        else:
            times = self._cache.index_select(1, self._step.index).to(dtype)
        both = times + self._classes.index_select(1, labels)
        return self._last(both), both[0]


def _check(norm: Any) -> None:
    """Nothing, when a block embeds timestep and class as it is computed here."""
    kind = type(norm.emb).__name__
    needs(kind == "CombinedTimestepLabelEmbeddings", f"its embedding is a {kind}")
    embedder, classes = norm.emb.timestep_embedder, norm.emb.class_embedder
    plain = embedder.cond_proj is None and embedder.post_act is None
    needs(
        plain and type(embedder.act) is nn.SiLU, "its timestep's embedding is no SiLU of two layers"
    )
    needs(type(norm.silu) is nn.SiLU, "its embedding's activation is no SiLU")
    needs(not (classes.training and classes.dropout_prob > 0), "it drops classes, as in training")


def _cached(norms: Sequence[Any]) -> Tensor:
    """`[L, T, C]`, the timestep's embedding in each block at every sampler step."""
    tables = []
    for norm in norms:
        embedder = norm.emb.timestep_embedder
        looked_up = isinstance(embedder.linear_2, CachedProjection)
        needs(looked_up and embedder.linear_2.inner is None, "some steps or blocks have no table")
        needs(
            not isinstance(embedder.linear_1, CudaLayer), "a layer runs that only a table follows"
        )
        tables.append(embedder.linear_2.table)
    needs(len({table.shape for table in tables}) == 1, "tables have other shapes in other blocks")
    return torch.stack(tables)


def _settings(module: nn.Module) -> dict[str, Any]:
    """What a module without parameters was made with."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training"
    }
