"""`Transformer2DModel` of a U-Net: group norm to codes, and the projections around its blocks."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from tfq_bench_cuda.blocks.fused import FusedBlock, kernel_layer, needs
from tfq_bench_cuda.blocks.pixels import as_images, as_pixels, group_norm, norm_codes
from tfq_bench_cuda.kernels.norms import row_codes
from tfq_bench_cuda.kernels.operands import Additions
from tfq_bench_cuda.kernels.specs import Ending
from tfq_bench_cuda.layers import CudaConv2d, CudaLayer

__all__ = ["Transformer2D"]


class Transformer2D(FusedBlock):
    """The fused pass between pixels and tokens; its blocks are called, fused or not.

    Raises:
        Unfusable: an input other than images, other norms or projections, or no kernels.
    """

    def __init__(self, name: str, block: nn.Module) -> None:
        known = cast(Any, block)
        needs(known.is_input_continuous, "its input is no image")
        self.norm = group_norm(block, "norm")
        needs(known.in_channels == known.out_channels, "its output has other channels")
        self.into, self.out = (
            kernel_layer(block, "proj_in", CudaLayer),
            kernel_layer(block, "proj_out", CudaLayer),
        )
        for layer in (self.into, self.out):
            pointwise = not isinstance(layer, CudaConv2d) or layer.geometry.pointwise
            needs(pointwise, "its projections look at more than a pixel")
        super().__init__(name, block, [self.into, self.out])
        dtype = self.out.runs.out
        self.out.runs = Ending(residual=dtype, out=dtype)

    def fused(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        timestep: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,  # noqa: ARG002
        class_labels: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """`[B, C, H, W]` with channels last, as `Transformer2DModel.forward` wraps it."""
        size = (hidden_states.shape[2], hidden_states.shape[3])
        pixels = as_pixels(hidden_states)
        (codes,) = norm_codes(self.norm, pixels, [self.into], silu=False)
        tokens = self.into.product(codes, self.into.runs, size=size)
        tokens = tokens.view(*pixels.shape[:2], -1)
        for inner in cast(Any, self.block).transformer_blocks:
            tokens = inner(
                tokens,
                attention_mask=_bias(attention_mask, tokens),
                encoder_hidden_states=encoder_hidden_states,
                encoder_attention_mask=_bias(encoder_attention_mask, tokens),
                timestep=timestep,
                cross_attention_kwargs=cross_attention_kwargs,
                class_labels=class_labels,
            )
        rows = tokens.reshape(-1, tokens.shape[-1])
        codes = row_codes(rows, step=self.out.step.index, tables=self.out.tables)
        additions = Additions(residual=pixels.flatten(0, 1))
        found = as_images(self.out.product(codes, self.out.runs, additions, size=size), size)
        if not return_dict:
            return (found,)
        from diffusers.models.modeling_outputs import Transformer2DModelOutput

        return Transformer2DModelOutput(sample=found)


def _bias(mask: Tensor | None, tokens: Tensor) -> Tensor | None:
    """`[B, 1, T]`, added to logits: 0 where a mask `[B, T]` is 1, -10,000 where it is 0."""
    if mask is None or mask.dim() != 2:
        return mask
    return ((1 - mask.to(tokens.dtype)) * -10000.0).unsqueeze(1)
