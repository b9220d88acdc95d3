"""`BasicTransformerBlock` whose norms and outputs are modulated by the timestep: DiT, PixArt."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from tfq_bench_cuda.blocks.fused import FusedBlock, Unfusable
from tfq_bench_cuda.blocks.transformer import Modulation, TransformerBlock

__all__ = ["AdaSingleBlock", "AdaZeroBlock", "transformer_block"]


class AdaZeroBlock(TransformerBlock):
    """The fused pass of DiT's block (`ada_norm_zero`): it embeds the timestep itself.

    Embedding and projection are called as the modules that they are.
    """

    gated = True

    def _norms(self, block: Any) -> tuple[nn.LayerNorm | None, ...]:
        return block.norm1.norm, block.norm2, block.norm3

    def _modulations(
        self, x: Tensor, timestep: Tensor | None, class_labels: Tensor | None
    ) -> tuple[Modulation, Modulation]:
        norm = cast(Any, self.block).norm1
        embedded = norm.emb(timestep, class_labels, hidden_dtype=x.dtype)
        return _modulations(norm.linear(norm.silu(embedded)).view(len(x), 6, -1))


class AdaSingleBlock(TransformerBlock):
    """The fused pass of PixArt's block (`ada_norm_single`): it adds a table to the timestep's.

    Cross-attention has no norm, and `norm2` is that of the feed-forward.
    """

    gated = True

    def _norms(self, block: Any) -> tuple[nn.LayerNorm | None, ...]:
        return block.norm1, None, block.norm2

    def _modulations(
        self,
        x: Tensor,
        timestep: Tensor | None,
        class_labels: Tensor | None,  # noqa: ARG002
    ) -> tuple[Modulation, Modulation]:
        assert timestep is not None
        table: Tensor = cast(Any, self.block).scale_shift_table
        return _modulations(table[None] + timestep.reshape(len(x), 6, -1))


def _modulations(six: Tensor) -> tuple[Modulation, Modulation]:
    """Of `[B, 6, C]`: shift, scale and gate of the attention, then of the feed-forward."""
    shift, scale, gate, last_shift, last_scale, last_gate = six.transpose(0, 1).float().contiguous()
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
