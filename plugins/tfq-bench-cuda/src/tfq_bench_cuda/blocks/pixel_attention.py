"""`Attention` as convolutional U-Nets use it: of all pixels of an image, normalized before."""

from __future__ import annotations

from itertools import chain
from typing import Any

from torch import Tensor

from tfq_bench_cuda.blocks.fused import FusedBlock, Unfusable, kernel_layer
from tfq_bench_cuda.blocks.pixels import as_images, as_pixels, group_norm, norm_codes
from tfq_bench_cuda.blocks.token_attention import SelfAttention
from tfq_bench_cuda.layers import CudaLinear
from tfq_bench_cuda.parts import dtype_name

__all__ = ["FusedAttention"]

_STANDARD = ("AttnProcessor", "AttnProcessor2_0")
"""diffusers' own processors of one product of queries and keys; they differ in speed only."""


class FusedAttention(FusedBlock):
    """The norm ends in codes, queries, keys and values are one product, the residual in the last.

    Raises:
        Unfusable: the attention is another than a plain one of the pixels among themselves, its
            own products are quantized, or a projection has no kernel.
    """

    def __init__(self, name: str, block: Any) -> None:
        _refuse(block)
        self.norm = group_norm(block, "group_norm")
        self.attention = SelfAttention(block, adds=bool(block.residual_connection))
        super().__init__(name, block, self.attention.layers)

    def fused(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """What came in, `[B, C, H, W]` (channels last in memory) or `[B, P, C]`.

        Other tokens to attend to, a mask, or another type than the network's go layer by layer.
        """
        other = dtype_name(hidden_states.dtype) != self.attention.out.runs.out
        if encoder_hidden_states is not None or attention_mask is not None or other:
            single: Tensor = self._single(
                hidden_states, encoder_hidden_states, attention_mask, **kwargs
            )
            return single
        images = hidden_states.dim() == 4
        x = as_pixels(hidden_states) if images else hidden_states.contiguous()
        codes = norm_codes(self.norm, x, self.attention.projections.first, silu=False)
        y = self.attention(list(chain.from_iterable(codes)), x)
        if images:
            return as_images(y.flatten(0, 1), (hidden_states.shape[2], hidden_states.shape[3]))
        return y


def _refuse(block: Any) -> None:
    """Nothing, when the block is built as the pass computes it."""
    processor = type(block.processor)
    if processor.__name__ not in _STANDARD or not processor.__module__.startswith("diffusers."):
        raise Unfusable(f"computed by {processor.__name__}, not by a standard processor")
    if block.group_norm is None:
        raise Unfusable("has no group norm before it")
    for part in ("spatial_norm", "norm_q", "norm_k", "add_k_proj"):
        if getattr(block, part) is not None:
            raise Unfusable(f"has '{part}', of which the pass knows nothing")
    if block.is_cross_attention or block.inner_kv_dim != block.inner_dim:
        raise Unfusable("its keys and values are not those of its own pixels, one per query")
    if not block.scale_qk or block.rescale_output_factor != 1:
        raise Unfusable("scales its output, or does not scale its queries")
    if block.to_out[1].training and block.to_out[1].p > 0:
        raise Unfusable("drops values out, as a network in training does")
    for name in ("to_q", "to_k", "to_v", "to_out.0"):
        kernel_layer(block, name, CudaLinear)
