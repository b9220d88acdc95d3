"""Keys and values of a text, which depend on no timestep: computed once per prompt.

They lie in buffers that stay where they are, so that a CUDA graph reads them at every step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from tfq_bench_cuda.blocks.fuse import BlockUse
from tfq_bench_cuda.blocks.token_attention import CrossAttention
from tfq_bench_cuda.blocks.transformer import TransformerBlock
from tfq_bench_cuda.layers import CudaLayer

__all__ = ["ContextCache", "install_context"]

_TEXT = "encoder_hidden_states"


class ContextCache:
    """Holds the keys and values of one text for every cross-attention of a network.

    Args:
        attentions: those whose tables are the same at every step.
        seen: what blocks see of the text that the network is given.

    Attributes:
        version: changes when buffers are made: graphs captured before read others.
    """

    def __init__(
        self, attentions: Sequence[CrossAttention], seen: Callable[[Tensor], Tensor]
    ) -> None:
        self.attentions, self._seen = tuple(attentions), seen
        self.version = 0
        self._held: Tensor | None = None
        self._given: Tensor | None = None
        self._given_version: int | None = None

    def update(self, text: Tensor) -> bool:
        """Computes keys and values where the text is not the one held; whether it did.

        Called before each step, outside of a CUDA graph: unless it is the very tensor of the call
        before, unchanged, its numbers are compared, which waits for the device.

        Args:
            text: `[B, T, C]`, what the network is given.
        """
        version = None if text.is_inference() else text._version
        if text is self._given and version is not None and version == self._given_version:
            return False
        # Buffers that were made in inference mode could not be written outside of it.
        with torch.inference_mode(False), torch.no_grad():
            alike = self._held is not None and _alike(self._held, text)
            equal = alike and torch.equal(cast(Tensor, self._held), text)
            if not alike:
                for attention in self.attentions:
                    attention.held = None
                self.version += 1
            if not equal:
                self._held = None  # until all of it is computed
                self._compute(text)
                self._held = text.clone()
        # Kept alive, so that no other tensor gets its place in memory.
        self._given, self._given_version = text, version
        return not equal

    def _compute(self, text: Tensor) -> None:
        seen = self._seen(text)
        for attention in self.attentions:
            found = attention.keys_values(seen)
            if attention.held is None:
                attention.held = [y.clone(memory_format=torch.contiguous_format) for y in found]
                continue
            for buffer, y in zip(attention.held, found, strict=True):
                buffer.copy_(y)


def install_context(network: nn.Module, blocks: Iterable[BlockUse]) -> ContextCache | None:
    """Lets the fused blocks of a network compute keys and values of a text once per prompt.

    A hook before `network.forward` updates them, except while a CUDA graph is captured: update
    before. From then on cross-attention reads what is held, whatever text of that shape a block is
    called with, so blocks are to be called by the network.

    Args:
        blocks: what `fuse` said of the network.

    Returns:
        None where there is nothing to hold: no cross-attention whose tables are the same at every
        step, or a network of which it is not known what its blocks see of the text.
    """
    seen = _seen_by_blocks(network)
    attentions = []
    for use in blocks:
        fused = network.get_submodule(use.name).forward
        if isinstance(fused, TransformerBlock) and fused.cross is not None and fused.cross.steady:
            attentions.append(fused.cross)
    if seen is None or not attentions:
        return None
    cache = ContextCache(attentions, seen)
    place = list(inspect.signature(type(network).forward).parameters).index(_TEXT) - 1

    def update(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        text = args[place] if len(args) > place else kwargs.get(_TEXT)
        if not isinstance(text, Tensor):
            return
        if not (text.is_cuda and torch.cuda.is_current_stream_capturing()):
            cache.update(text)

    network.register_forward_pre_hook(update, with_kwargs=True)
    return cache


def _seen_by_blocks(network: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """What the network makes of a text before its blocks see it, None where that is not known."""
    known, kind = cast(Any, network), type(network).__name__
    if kind == "UNet2DConditionModel":
        return None if known.encoder_hid_proj is not None else lambda text: text
    if kind != "PixArtTransformer2DModel":
        return None
    projection = known.caption_projection
    if projection is None:
        return lambda text: text
    if not all(_steady(child) for child in projection.children()):
        return None
    return lambda text: projection(text).view(len(text), -1, known.inner_dim)


def _steady(module: nn.Module) -> bool:
    """Whether a part of the caption's projection surely computes the same at every step."""
    if isinstance(module, CudaLayer):
        return module.steady
    return isinstance(module, nn.Linear) or not any(True for _ in module.buffers())


def _alike(one: Tensor, other: Tensor) -> bool:
    return (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
