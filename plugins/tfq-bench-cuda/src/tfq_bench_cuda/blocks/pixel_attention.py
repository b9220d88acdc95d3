"""`Attention` as convolutional U-Nets use it: of all pixels of an image, normalized before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tfq_bench_cuda.blocks.fused import FusedBlock, Unfusable, kernel_layer
from tfq_bench_cuda.blocks.joined import Joined, same_codes
from tfq_bench_cuda.blocks.pixels import as_images, as_pixels, group_norm, norm_codes
from tfq_bench_cuda.kernels.norms import row_codes
from tfq_bench_cuda.kernels.operands import Additions
from tfq_bench_cuda.kernels.specs import Ending
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
        self.inputs = [kernel_layer(block, f"to_{which}", CudaLinear) for which in "qkv"]
        self.output = kernel_layer(block, "to_out.0", CudaLinear)
        super().__init__(name, block, [*self.inputs, self.output])
        self.heads: int = block.heads
        self.adds = bool(block.residual_connection)
        self.joined = Joined(self.inputs) if same_codes(self.inputs) else None
        self.output.runs = self._last(self.output.runs.out)

    def fused(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """What came in, `[B, C, H, W]` (channels last in memory) or `[B, P, C]`.

        Other tokens to attend to, or a mask, go layer by layer.
        """
        if encoder_hidden_states is not None or attention_mask is not None:
            single: Tensor = self._single(
                hidden_states, encoder_hidden_states, attention_mask, **kwargs
            )
            return single
        images = hidden_states.dim() == 4
        x = as_pixels(hidden_states) if images else hidden_states.contiguous()
        dtype = dtype_name(x.dtype)
        query, key, value = (part.transpose(1, 2) for part in self._projected(x, dtype))
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        codes = row_codes(
            mixed.flatten(0, 1), step=self.output.step.index, tables=self.output.tables
        )
        residual = Additions(residual=x.flatten(0, 1) if self.adds else None)
        y = self.output.product(codes, self._last(dtype), residual)
        if images:
            return as_images(y, (hidden_states.shape[2], hidden_states.shape[3]))
        return y.view(*x.shape[:2], -1)

    def _projected(self, x: Tensor, dtype: str) -> tuple[Tensor, ...]:
        """Queries, keys and values, `[B, P, heads, D]`; of one product they are views."""
        read = self.inputs if self.joined is None else self.inputs[:1]
        codes = norm_codes(self.norm, x, read, silu=False)
        ending = Ending(out=dtype)
        shape = (*x.shape[:2], self.heads, -1)
        if self.joined is None:
            products = zip(self.inputs, codes, strict=True)
            return tuple(layer.product(code, ending).view(shape) for layer, code in products)
        together = self.joined.product(codes[0][0].flatten(0, 1), ending)
        return torch.unbind(together.view(*x.shape[:2], 3, self.heads, -1), 2)

    def _last(self, dtype: str) -> Ending:
        return Ending(residual=dtype if self.adds else "", out=dtype)


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
