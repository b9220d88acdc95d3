"""Layers of CompVis's networks as functions of named tensors, and the numbers of a small model.

Names, shapes and arithmetic here and in the two networks are written from their description, not
from the converter, so that the two can disagree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

GROUPS = 4


class Tensors(dict):
    """A checkpoint that grows: a tensor is drawn when it is first read."""

    def __init__(self) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(0)

    def read(self, name: str, *shape: int) -> torch.Tensor:
        """The tensor of this name, in float64."""
        if name not in self:
            fan = math.prod(shape[1:]) if len(shape) > 1 else 4
            self[name] = torch.randn(*shape, generator=self._generator) / fan**0.5
        assert tuple(self[name].shape) == shape, name
        return self[name].double()

    def conv(self, name, x, out, kernel=3, stride=1, padding=None):
        """A convolution in as many dimensions as `x` has behind its channels."""
        dimensions = x.dim() - 2
        weight = self.read(f"{name}.weight", out, x.shape[1], *[kernel] * dimensions)
        bias = self.read(f"{name}.bias", out)
        run = {1: F.conv1d, 2: F.conv2d}[dimensions]
        return run(x, weight, bias, stride, kernel // 2 if padding is None else padding)

    def linear(self, name, x, out, bias=True):
        """A linear layer."""
        weight = self.read(f"{name}.weight", out, x.shape[-1])
        return F.linear(x, weight, self.read(f"{name}.bias", out) if bias else None)

    def norm(self, name, x, eps):
        """A group norm."""
        weight, bias = (self.read(f"{name}.{part}", x.shape[1]) for part in ("weight", "bias"))
        return F.group_norm(x, GROUPS, weight, bias, eps)

    def layer_norm(self, name, x):
        """A layer norm."""
        weight, bias = (self.read(f"{name}.{part}", x.shape[-1]) for part in ("weight", "bias"))
        return F.layer_norm(x, x.shape[-1:], weight, bias)


@dataclass(frozen=True)
class Spec:
    """A small model: the numbers that its configuration states."""

    channels: int
    multipliers: tuple[int, ...]
    attention_at: tuple[int, ...]
    latents: int = 3
    blocks: int = 2
    heads: int = 0
    head_channels: int = 0
    film: bool = False
    residual_resampling: bool = False
    context: int = 0
    kl: bool = False
    decoder_channels: tuple[int, ...] = (4, 8, 8)
    codes: int = 16
    tensors: Tensors = field(default_factory=Tensors)

    def number_of_heads(self, channels: int) -> int:
        """Given, or as many as have a given size."""
        return self.heads or channels // self.head_channels


def resized(x, how):
    """Half the size by means, or twice the size by repetition."""
    if how == "down":
        return F.avg_pool2d(x, 2)
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def attend(q, k, v):
    """Softmax attention over `[..., tokens, channels]`."""
    return torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1) @ v
