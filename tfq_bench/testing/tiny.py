"""A diffusion model small enough for tests that run whole suites in seconds.

It has one of everything that quantizers must handle: a time MLP, two residual blocks with a time
projection each, attention, and a convolution over a concatenation. The weights are random, from a
fixed generator; the images mean nothing, but they are deterministic.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfq_bench.errors import SuiteError, nearest
from tfq_bench.types import Block, Layer, Role, Topology
from tfq_bench.types.networks import LoadedModel, PlainState

__all__ = ["TinyModel", "TinyNetwork", "TinySampler", "load_tiny"]

SIZE = 8
WIDTH = 16
TIME = 32
TRAINED_STEPS = 1000

# name, role, block, positions at which the layer is applied, split
_LAYERS: tuple[tuple[str, Role, str, int, int | None], ...] = (
    ("time_mlp.0", "time-mlp", "time_mlp", 1, None),
    ("time_mlp.2", "time-mlp", "time_mlp", 1, None),
    ("conv_in", "input", "conv_in", SIZE * SIZE, None),
    ("first.conv1", "conv", "first", SIZE * SIZE, None),
    ("first.time", "time-projection", "first", 1, None),
    ("first.conv2", "conv", "first", SIZE * SIZE, None),
    ("attention.qkv", "attention", "attention", SIZE * SIZE, None),
    ("attention.out", "attention", "attention", SIZE * SIZE, None),
    ("second.conv1", "conv", "second", SIZE * SIZE, WIDTH),
    ("second.time", "time-projection", "second", 1, None),
    ("second.conv2", "conv", "second", SIZE * SIZE, None),
    ("second.shortcut", "shortcut", "second", SIZE * SIZE, WIDTH),
    ("conv_out", "output", "conv_out", SIZE * SIZE, None),
)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(4, channels)
        self.conv1 = nn.Conv2d(channels, WIDTH, 3, padding=1)
        self.time = nn.Linear(TIME, WIDTH)
        self.norm2 = nn.GroupNorm(4, WIDTH)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, WIDTH, 1) if channels != WIDTH else None

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h: Tensor = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(F.silu(time))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        skip: Tensor = x if self.shortcut is None else self.shortcut(x)
        return h + skip


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        weights = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(WIDTH), dim=-1)
        mixed: Tensor = self.out(weights @ v)
        return x + mixed.transpose(1, 2).reshape(x.shape)


class TinyNetwork(nn.Module):
    """Predicts the noise `[B, 3, 8, 8]` in x `[B, 3, 8, 8]` at timestep `[B]`."""

    def __init__(self) -> None:
        super().__init__()
        self.time_mlp = nn.Sequential(nn.Linear(WIDTH, TIME), nn.SiLU(), nn.Linear(TIME, TIME))
        self.conv_in = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.first = _Residual(WIDTH)
        self.attention = _Attention()
        self.second = _Residual(2 * WIDTH)
        self.norm_out = nn.GroupNorm(4, WIDTH)
        self.conv_out = nn.Conv2d(WIDTH, 3, 3, padding=1)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        """The predicted noise, shaped like `x`."""
        rate = torch.arange(WIDTH // 2, device=x.device, dtype=x.dtype) * (-8.0 / (WIDTH // 2))
        angle = timestep.to(x.dtype)[:, None] * torch.exp(rate)
        time = self.time_mlp(torch.cat([angle.sin(), angle.cos()], dim=1))
        shallow = self.conv_in(x)
        deep = self.attention(self.first(shallow, time))
        deep = self.second(torch.cat([deep, shallow], dim=1), time)
        noise: Tensor = self.conv_out(F.silu(self.norm_out(deep)))
        return noise


class TinySampler(PlainState):
    """DDIM over evenly spaced timesteps of a linear schedule.

    Args:
        steps: number of network calls, 1 to 1000.
        eta: 0 for the deterministic sampler, 1 for ancestral noise.
    """

    def __init__(self, steps: int, eta: float) -> None:
        if not 1 <= steps <= TRAINED_STEPS:
            raise SuiteError(f"model 'tiny' samples in 1 to {TRAINED_STEPS} steps, found {steps}.")
        spacing = TRAINED_STEPS // steps
        self.timesteps: tuple[int | float, ...] = tuple(
            index * spacing + 1 for index in reversed(range(steps))
        )
        self.stochastic = eta > 0
        self.definition: Mapping[str, Any] = {"sampler": "ddim", "steps": steps, "eta": eta}
        self._eta = eta
        betas = torch.linspace(1e-4, 0.02, TRAINED_STEPS, dtype=torch.float64)
        kept = torch.cumprod(1 - betas, dim=0)
        self._kept = [float(kept[int(t) - 1]) for t in self.timesteps] + [1.0]

    def step(self, state: Tensor, prediction: Tensor, index: int, noise: Tensor | None) -> Tensor:
        """X of the next step; arXiv:2010.02502, equation 12."""
        now, after = self._kept[index], self._kept[index + 1]
        clean = ((state - math.sqrt(1 - now) * prediction) / math.sqrt(now)).clamp(-1, 1)
        if noise is None:
            return math.sqrt(after) * clean + math.sqrt(1 - after) * prediction
        sigma = self._eta * math.sqrt((1 - after) / (1 - now) * (1 - now / after))
        direction = math.sqrt(max(1 - after - sigma**2, 0.0)) * prediction
        return math.sqrt(after) * clean + direction + sigma * noise


class TinyModel:
    """An `api.Model` of 8×8 colour images.

    Args:
        weights_seed: of the random weights.
    """

    latent_shape = (3, SIZE, SIZE)
    dtype = torch.float32

    def __init__(self, *, weights_seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(weights_seed)
        self._weights = {
            name: _random(name, value, generator) for name, value in _blank().state_dict().items()
        }
        content = hashlib.sha256()
        for name, value in self._weights.items():
            content.update(name.encode())
            content.update(value.numpy().tobytes())
        self.digest = content.hexdigest()

    def load(self, *, device: str, dtype: torch.dtype) -> nn.Module:
        """A fresh `TinyNetwork` in eval mode, without gradients."""
        network = _blank()
        weights = {name: value.clone() for name, value in self._weights.items()}
        network.load_state_dict(weights, assign=True)
        return network.to(device=device, dtype=dtype).eval().requires_grad_(False)

    def predict(
        self,
        network: nn.Module,
        x: Tensor,
        timestep: Tensor,
        condition: Mapping[str, Tensor],  # noqa: ARG002
    ) -> Tensor:
        """The predicted noise `[B, 3, 8, 8]`."""
        noise: Tensor = network(x.to(next(network.parameters()).dtype), timestep)
        return noise.float()

    def topology(self, network: nn.Module) -> Topology:
        """Written down by hand, so that tests can hold a traced topology against it."""
        modules = dict(network.named_modules())
        layers = []
        for name, role, block, positions, split in _LAYERS:
            module = modules[name]
            weight = module.weight
            assert isinstance(weight, Tensor)
            layers.append(
                Layer(
                    name=name,
                    kind="conv2d" if isinstance(module, nn.Conv2d) else "linear",
                    role=role,
                    block=block,
                    weight_shape=tuple(weight.shape),
                    macs=positions * weight.numel(),
                    split=split,
                )
            )
        return Topology(
            layers=tuple(layers),
            blocks=tuple(
                Block(name=block, layers=tuple(la.name for la in layers if la.block == block))
                for block in dict.fromkeys(layer.block for layer in layers)
            ),
            time_mlp=tuple(la.name for la in layers if la.role == "time-mlp"),
            time_projections=tuple(la.name for la in layers if la.role == "time-projection"),
            time_features=tuple(la.name for la in layers if la.role == "time-projection"),
        )

    def sampler(self, name: str, steps: int) -> TinySampler:
        """`ddim` or `ddim-stochastic`."""
        etas = {"ddim": 0.0, "ddim-stochastic": 1.0}
        if name not in etas:
            raise SuiteError(f"model 'tiny' has no sampler '{name}'; {nearest(name, etas)}")
        return TinySampler(steps, etas[name])

    def conditions(self, images: Sequence[int], *, device: str) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Nothing: the model is unconditional."""
        return {}

    def guidance(self, *, device: str) -> None:
        """None: the model is unconditional."""

    def decode(self, latents: Tensor) -> Tensor:
        """uint8 `[B, 8, 8, 3]` from values in [-1, 1]."""
        scaled = (latents.float().clamp(-1, 1) + 1) * 127.5
        return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu()

    def reference(self, extractor: str) -> Path | None:  # noqa: ARG002
        """None: random weights were trained on nothing."""
        return None


def load_tiny(*, steps: int = 4, sampler: str = "ddim", device: str = "cpu") -> LoadedModel:
    """A freshly loaded `TinyModel` in float32 with a sampler of `steps` steps."""
    model = TinyModel()
    network = model.load(device=device, dtype=torch.float32)
    return LoadedModel(
        model=model,
        network=network,
        topology=model.topology(network),
        sampler=model.sampler(sampler, steps),
        device=device,
    )


def _blank() -> TinyNetwork:
    """Without values, so that torch's global generator is left alone."""
    with torch.device("meta"):
        return TinyNetwork()


def _random(name: str, value: Tensor, generator: torch.Generator) -> Tensor:
    if "norm" in name:
        return torch.ones(value.shape) if name.endswith("weight") else torch.zeros(value.shape)
    fan_in = max(math.prod(value.shape[1:]), 1) if value.ndim > 1 else WIDTH
    return torch.randn(value.shape, generator=generator) / math.sqrt(fan_in)
