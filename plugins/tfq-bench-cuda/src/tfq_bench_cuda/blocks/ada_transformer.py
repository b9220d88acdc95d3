"""`BasicTransformerBlock` whose norms and outputs are modulated by the timestep: DiT, PixArt."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from tfq_bench_cuda.blocks.fused import FusedBlock, Unfusable
from tfq_bench_cuda.blocks.modulations import Modulations
from tfq_bench_cuda.blocks.transformer import Modulation, TransformerBlock

__all__ = ["AdaSingleBlock", "AdaZeroBlock", "transformer_block"]


class _AdaBlock(TransformerBlock):
    """Attributes: shared: computes modulations for all blocks; None: each block its own."""

    gated = True
    shared: Modulations | None = None


class AdaZeroBlock(_AdaBlock):
    """The fused pass of DiT's block (`ada_norm_zero`): it embeds the timestep itself.

    Embedding and projection are called as the modules that they are, unless they are shared.
    """

    def _norms(self, block: Any) -> tuple[nn.LayerNorm | None, ...]:
        return block.norm1.norm, block.norm2, block.norm3

    def _modulations(
        self, x: Tensor, timestep: Tensor | None, class_labels: Tensor | None
    ) -> tuple[Modulation, Modulation]:
        if self.shared is not None and timestep is not None and len(timestep) == len(x):
            return _modulations(self.shared.take(self, timestep, class_labels, x.dtype))
        norm = cast(Any, self.block).norm1
        embedded = norm.emb(timestep, class_labels, hidden_dtype=x.dtype)
        return _modulations(_apart(norm.linear(norm.silu(embedded)).view(len(x), 6, -1)))


class AdaSingleBlock(_AdaBlock):
    """The fused pass of PixArt's block (`ada_norm_single`): it adds a table to the timestep's.

    Cross-attention has no norm, and `norm2` is that of the feed-forward.
    """

    def _norms(self, block: Any) -> tuple[nn.LayerNorm | None, ...]:
        return block.norm1, None, block.norm2

    def _modulations(
        self,
        x: Tensor,
        timestep: Tensor | None,
        class_labels: Tensor | None,  # noqa: ARG002
    ) -> tuple[Modulation, Modulation]:
        assert timestep is not None
        if self.shared is not None and len(timestep) == len(x):
            return _modulations(self.shared.take(self, timestep, None, x.dtype))
        table: Tensor = cast(Any, self.block).scale_shift_table
        return _modulations(_apart(table[None] + timestep.reshape(len(x), 6, -1)))


def _apart(six: Tensor) -> Tensor:
    """Float32 `[6, B, C]` contiguous of `[B, 6, C]`."""
    return six.transpose(0, 1).float().contiguous()


def _modulations(six: Tensor) -> tuple[Modulation, Modulation]:
    """Of `[6, B, C]`: shift, scale and gate of the attention, then of the feed-forward."""
    shift, scale, gate, last_shift, last_scale, last_gate = six
    return (
        Modulation(shift=shift, scale=scale, gate=gate),
        Modulation(shift=last_shift, scale=last_scale, gate=last_gate),
    )


_FORMS: dict[str, type[TransformerBlock]] = {
    "layer_norm": TransformerBlock,
    "ada_norm_zero": AdaZeroBlock,
    "ada_norm_single": AdaSingleBlock,
}


def transformer_block(name: str, block: nn.Module) -> FusedBlock:
    """The fused pass of a `BasicTransformerBlock`.

    Raises:
        Unfusable: norms of another kind; and see `TransformerBlock`.
    """
    kind = cast(Any, block).norm_type
    if kind not in _FORMS:
        raise Unfusable(f"its norms are of the kind '{kind}'")
    return _FORMS[kind](name, block)
