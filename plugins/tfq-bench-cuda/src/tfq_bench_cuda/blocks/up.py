"""Up blocks of a U-Net whose residual blocks read both parts of a concatenation where they lie.

diffusers concatenates what comes from below with a skip connection; the first norm and the shortcut
of a residual block are all that reads the copy. Here they read the two tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from tfq_bench_cuda.blocks.fuse import BlockUse
from tfq_bench_cuda.blocks.resnet import FusedResnet

__all__ = ["UpPass", "read_both_parts"]

_KINDS = ("UpBlock2D", "CrossAttnUpBlock2D")


def read_both_parts(network: nn.Module, blocks: Sequence[BlockUse]) -> list[BlockUse]:
    """Exchanges the `forward` of up blocks some of whose residual blocks are fused.

    Args:
        blocks: what `fuse` said of the network.

    Returns:
        The same: an up block has no layers of its own.
    """
    for module in network.modules():
        kind = type(module)
        if kind.__name__ not in _KINDS or kind.__module__.partition(".")[0] != "diffusers":
            continue
        resnets = list(cast(Any, module).resnets)
        if any(isinstance(resnet.forward, FusedResnet) for resnet in resnets):
            module.forward = UpPass(module)  # type: ignore[method-assign]
    return list(blocks)


class UpPass:
    """Called in the place of an up block's `forward`; all that it calls are the block's modules."""

    def __init__(self, block: nn.Module) -> None:
        self.block = cast(Any, block)
        self._single: Callable[..., Tensor] = block.forward

    def __call__(
        self,
        hidden_states: Tensor,
        res_hidden_states_tuple: tuple[Tensor, ...],
        temb: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """`[B, C, H, W]`; arguments as those of the block's `forward`.

        What needs the copy runs as diffusers has it: FreeU, gradients, arguments by place.
        """
        block = self.block
        free = all(getattr(block, name, None) for name in ("s1", "s2", "b1", "b2"))
        if args or free or torch.is_grad_enabled():
            return self._single(hidden_states, res_hidden_states_tuple, temb, *args, **kwargs)
        size = kwargs.pop("upsample_size", None)
        attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
        skips = reversed(res_hidden_states_tuple)
        for resnet, attention, skip in zip(block.resnets, attentions, skips, strict=False):
            hidden_states = _called(resnet, hidden_states, skip, temb)
            if attention is not None:
                (hidden_states,) = attention(hidden_states, return_dict=False, **kwargs)
        for upsampler in block.upsamplers or ():
            hidden_states = upsampler(hidden_states, size)
        return hidden_states


def _called(resnet: nn.Module, x: Tensor, skip: Tensor, temb: Tensor | None) -> Tensor:
    """A residual block of x and a skip connection; of their copy where somebody looks at it."""
    fused = resnet.forward
    seen = resnet._forward_hooks or resnet._forward_pre_hooks
    if isinstance(fused, FusedResnet) and not seen and fused.reads_both(x, skip, temb):
        return fused.fused(x, temb, skip=skip)
    found: Tensor = resnet(torch.cat([x, skip], dim=1), temb)
    return found
