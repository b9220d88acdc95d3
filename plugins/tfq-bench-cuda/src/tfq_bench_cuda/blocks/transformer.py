"""`BasicTransformerBlock` between codes: SD 1.5 and SD-XL; `ada_transformer` has DiT and PixArt.

x = x + attn1(norm(x))        norm to codes, queries, keys and values one product, attention,
x = x + attn2(norm(x), text)  codes, output layer that adds x
x = x + ff(norm(x))           norm to codes, product that ends in codes, output layer that adds x
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from tfq_bench_cuda.blocks.feed_forward import FeedForward, check_feed_forward
from tfq_bench_cuda.blocks.fused import FusedBlock, needs
from tfq_bench_cuda.blocks.token_attention import CrossAttention, SelfAttention, check_attention
from tfq_bench_cuda.kernels.norms import Table, layer_norm_codes, row_codes

__all__ = ["Modulation", "TransformerBlock"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Modulation:
    """What a timestep does to a norm and to what follows it; None for nothing.

    Args:
        scale, shift: float32 `[B, C]`: the norm times `1 + scale`, plus `shift`.
        gate: float32 `[B, C]`, times the output before the residual is added.
    """

    scale: Tensor | None = None
    shift: Tensor | None = None
    gate: Tensor | None = None


class TransformerBlock(FusedBlock):
    """The fused pass of a block with plain layer norms.

    Raises:
        Unfusable: see `check_attention` and `check_feed_forward`; two self-attentions, positions
            within the block, GLIGEN, or a feed-forward in chunks.
    """

    gated = False
    """Whether attention and feed-forward are multiplied by gates."""

    def __init__(self, name: str, block: nn.Module) -> None:
        _check(block)
        known = cast(Any, block)
        self.norms = self._norms(known)
        for norm in self.norms:
            kind = type(norm).__name__
            needs(norm is None or isinstance(norm, nn.LayerNorm), f"one of its norms is a {kind}")
        self.attention = SelfAttention(known.attn1, gated=self.gated)
        self.cross = None if known.attn2 is None else CrossAttention(known.attn2)
        self.feed_forward = FeedForward(known.ff, gated=self.gated)
        passes = [self.attention, self.cross, self.feed_forward]
        layers = [layer for one in passes if one is not None for layer in one.layers]
        super().__init__(name, block, layers)
        if self.cross is not None and not self.cross.steady:
            self.remarks = (
                "keys and values of the text are computed at every step: tables differ by step",
            )

    def fused(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        timestep: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        class_labels: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """`[B, S, C]`; arguments as those of `BasicTransformerBlock.forward`.

        Layer by layer where these ask for what is not fused: adapters, a call without the text.
        """
        textless = self.cross is not None and encoder_hidden_states is None
        if cross_attention_kwargs or textless or hidden_states.dim() != 3:
            found: Tensor = self._single(
                hidden_states,
                attention_mask,
                encoder_hidden_states,
                encoder_attention_mask,
                timestep,
                cross_attention_kwargs,
                class_labels,
                added_cond_kwargs,
            )
            return found
        x = hidden_states.contiguous()
        first, last = self._modulations(x, timestep, class_labels)
        codes = self._codes(self.norms[0], x, self.attention.tables, first)
        x = self.attention(codes, x, attention_mask, first.gate)
        if self.cross is not None:
            assert encoder_hidden_states is not None
            codes = self._codes(self.norms[1], x, self.cross.tables, Modulation())
            x = self.cross(codes, x, encoder_hidden_states, encoder_attention_mask)
        codes = self._codes(self.norms[2], x, self.feed_forward.tables, last)
        return self.feed_forward(codes, x, last.gate)

    def _norms(self, block: Any) -> tuple[nn.LayerNorm | None, ...]:
        """Before self-attention, cross-attention and feed-forward; None quantizes what comes."""
        return block.norm1, block.norm2, block.norm3

    def _modulations(
        self,
        x: Tensor,  # noqa: ARG002
        timestep: Tensor | None,  # noqa: ARG002
        class_labels: Tensor | None,  # noqa: ARG002
    ) -> tuple[Modulation, Modulation]:
        """Of self-attention and feed-forward."""
        return Modulation(), Modulation()

    def _codes(
        self, norm: nn.LayerNorm | None, x: Tensor, tables: list[Table], by: Modulation
    ) -> list[Tensor]:
        step = self.layers[0].step.index
        if norm is None:
            return row_codes(x.view(-1, x.shape[-1]), step=step, tables=tables)
        return layer_norm_codes(
            x,
            norm.weight,
            norm.bias,
            eps=norm.eps,
            step=step,
            tables=tables,
            scale=by.scale,
            shift=by.shift,
        )


def _check(block: nn.Module) -> None:
    """Before anything of the block is touched."""
    known = cast(Any, block)
    needs(known.pos_embed is None, "it adds positions to its norms")
    needs(not hasattr(block, "fuser"), "it has a gated attention of GLIGEN")
    needs(known._chunk_size is None, "its feed-forward runs in chunks")
    needs(not known.only_cross_attention, "its first attention reads the text")
    check_attention(block, "attn1")
    if known.attn2 is not None:
        needs(known.attn2.is_cross_attention, "its second attention reads no text")
        check_attention(block, "attn2")
    check_feed_forward(block, "ff")
