"""Latent diffusion models as CompVis lays them out, stated once more as functions of named tensors.

The names, shapes and arithmetic here are written from the description of the networks, not from the
converter, so that the two can disagree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from tfq_bench_diffusers.convert import FAMILIES, Family

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


def residual(w, name, x, time, out, spec, resample=""):
    """Norm, convolution, time, norm, convolution; the skip has a convolution when widths differ."""
    h = F.silu(w.norm(f"{name}.in_layers.0", x, 1e-5))
    if resample:
        h, x = (resized(one, resample) for one in (h, x))
    h = w.conv(f"{name}.in_layers.2", h, out)
    told = w.linear(f"{name}.emb_layers.1", F.silu(time), out * (2 if spec.film else 1))
    told = told[:, :, None, None]
    if spec.film:
        scale, shift = told[:, :out], told[:, out:]
        h = w.norm(f"{name}.out_layers.0", h, 1e-5) * (1 + scale) + shift
    else:
        h = w.norm(f"{name}.out_layers.0", h + told, 1e-5)
    h = w.conv(f"{name}.out_layers.3", F.silu(h), out)
    if x.shape[1] != out:
        x = w.conv(f"{name}.skip_connection", x, out, kernel=1)
    return x + h


def resized(x, how):
    """Half the size by means, or twice the size by repetition."""
    if how == "down":
        return F.avg_pool2d(x, 2)
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def attend(q, k, v):
    """Softmax attention over `[..., tokens, channels]`."""
    return torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1) @ v


def pixel_attention(w, name, x, heads):
    """One convolution makes query, key and value: head by head, each the three in turn."""
    batch, channels, *size = x.shape
    flat = w.norm(f"{name}.norm", x, 1e-5).flatten(2)
    mixed = w.conv(f"{name}.qkv", flat, 3 * channels, kernel=1)
    out = []
    for one in mixed.split(3 * channels // heads, dim=1):
        q, k, v = (part.transpose(1, 2) for part in one.chunk(3, dim=1))
        out.append(attend(q, k, v).transpose(1, 2))
    h = w.conv(f"{name}.proj_out", torch.cat(out, dim=1), channels, kernel=1)
    return x + h.reshape(batch, channels, *size)


def transformer(w, name, x, context, heads):
    """Self-attention, attention to the context, gated feed-forward: over the pixels."""
    batch, channels, *size = x.shape
    h = w.conv(f"{name}.proj_in", w.norm(f"{name}.norm", x, 1e-6), channels, kernel=1)
    h = h.flatten(2).transpose(1, 2)
    block = f"{name}.transformer_blocks.0"
    for number in (1, 2):
        read = w.layer_norm(f"{block}.norm{number}", h)
        told = read if number == 1 else context
        q = w.linear(f"{block}.attn{number}.to_q", read, channels, bias=False)
        k = w.linear(f"{block}.attn{number}.to_k", told, channels, bias=False)
        v = w.linear(f"{block}.attn{number}.to_v", told, channels, bias=False)
        q, k, v = (one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in (q, k, v))
        mixed = attend(q, k, v).transpose(1, 2).flatten(2)
        h = h + w.linear(f"{block}.attn{number}.to_out.0", mixed, channels)
    read = w.layer_norm(f"{block}.norm3", h)
    value, gate = w.linear(f"{block}.ff.net.0.proj", read, 8 * channels).chunk(2, dim=-1)
    h = h + w.linear(f"{block}.ff.net.2", value * F.gelu(gate), channels)
    h = h.transpose(1, 2).reshape(batch, channels, *size)
    return x + w.conv(f"{name}.proj_out", h, channels, kernel=1)


def unet(spec: Spec, x, t, context=None):
    """The noise in `x [B, C, H, W]` at timesteps `t [B]`."""
    w, root = spec.tensors, "model.diffusion_model."
    half = spec.channels // 2
    angles = t[:, None].double() * 10_000 ** (-torch.arange(half).double() / half)
    time = torch.cat([angles.cos(), angles.sin()], dim=1)
    time = F.silu(w.linear(f"{root}time_embed.0", time, 4 * spec.channels))
    time = w.linear(f"{root}time_embed.2", time, 4 * spec.channels)

    def attention(name, h):
        heads = spec.number_of_heads(h.shape[1])
        if spec.context:
            return transformer(w, name, h, context, heads)
        return pixel_attention(w, name, h, heads)

    widths = [spec.channels * one for one in spec.multipliers]
    h = w.conv(f"{root}input_blocks.0.0", x, spec.channels)
    kept, entry = [h], 0
    for level, width in enumerate(widths):
        for _ in range(spec.blocks):
            entry += 1
            h = residual(w, f"{root}input_blocks.{entry}.0", h, time, width, spec)
            if 2**level in spec.attention_at:
                h = attention(f"{root}input_blocks.{entry}.1", h)
            kept.append(h)
        if level < len(widths) - 1:
            entry += 1
            name = f"{root}input_blocks.{entry}.0"
            if spec.residual_resampling:
                h = residual(w, name, h, time, width, spec, "down")
            else:
                h = w.conv(f"{name}.op", h, width, stride=2)
            kept.append(h)
    h = residual(w, f"{root}middle_block.0", h, time, widths[-1], spec)
    h = attention(f"{root}middle_block.1", h)
    h = residual(w, f"{root}middle_block.2", h, time, widths[-1], spec)
    entry = -1
    for level, width in reversed(list(enumerate(widths))):
        for number in range(spec.blocks + 1):
            entry += 1
            h = torch.cat([h, kept.pop()], dim=1)
            h = residual(w, f"{root}output_blocks.{entry}.0", h, time, width, spec)
            module = 1
            if 2**level in spec.attention_at:
                h = attention(f"{root}output_blocks.{entry}.1", h)
                module = 2
            if level > 0 and number == spec.blocks:
                name = f"{root}output_blocks.{entry}.{module}"
                if spec.residual_resampling:
                    h = residual(w, name, h, time, width, spec, "up")
                else:
                    h = w.conv(f"{name}.conv", resized(h, "up"), width)
    return w.conv(f"{root}out.2", F.silu(w.norm(f"{root}out.0", h, 1e-5)), spec.latents)


def plain_residual(w, name, x, out):
    """The autoencoder's block: no time."""
    h = w.conv(f"{name}.conv1", F.silu(w.norm(f"{name}.norm1", x, 1e-6)), out)
    h = w.conv(f"{name}.conv2", F.silu(w.norm(f"{name}.norm2", h, 1e-6)), out)
    return h + (x if x.shape[1] == out else w.conv(f"{name}.nin_shortcut", x, out, kernel=1))


def middle(w, name, h):
    """Block, attention with one head, block."""
    h = plain_residual(w, f"{name}.block_1", h, h.shape[1])
    read = w.norm(f"{name}.attn_1.norm", h, 1e-6)
    q, k, v = (
        w.conv(f"{name}.attn_1.{one}", read, h.shape[1], kernel=1).flatten(2).transpose(1, 2)
        for one in "qkv"
    )
    mixed = attend(q, k, v).transpose(1, 2).reshape(h.shape)
    h = h + w.conv(f"{name}.attn_1.proj_out", mixed, h.shape[1], kernel=1)
    return plain_residual(w, f"{name}.block_2", h, h.shape[1])


def encode(spec: Spec, pixels):
    """Latents of images, or their means and log-variances, before any scaling."""
    w, root = spec.tensors, "first_stage_model.encoder."
    h = w.conv(f"{root}conv_in", pixels, spec.decoder_channels[0])
    for level, width in enumerate(spec.decoder_channels):
        for number in range(2):
            h = plain_residual(w, f"{root}down.{level}.block.{number}", h, width)
        if level < len(spec.decoder_channels) - 1:
            h = F.pad(h, (0, 1, 0, 1))
            h = w.conv(f"{root}down.{level}.downsample.conv", h, width, stride=2, padding=0)
    h = F.silu(w.norm(f"{root}norm_out", middle(w, f"{root}mid", h), 1e-6))
    width = spec.latents * (2 if spec.kl else 1)
    h = w.conv(f"{root}conv_out", h, width)
    return w.conv("first_stage_model.quant_conv", h, width, kernel=1)


def decode(spec: Spec, latents):
    """Images of latents that are not scaled."""
    w, root = spec.tensors, "first_stage_model.decoder."
    h = latents
    if not spec.kl:
        book = w.read("first_stage_model.quantize.embedding.weight", spec.codes, spec.latents)
        flat = h.movedim(1, -1)
        nearest = (flat[..., None, :] - book).square().sum(-1).argmin(-1)
        h = book[nearest].movedim(-1, 1)
    h = w.conv("first_stage_model.post_quant_conv", h, spec.latents, kernel=1)
    h = w.conv(f"{root}conv_in", h, spec.decoder_channels[-1])
    h = middle(w, f"{root}mid", h)
    for level, width in reversed(list(enumerate(spec.decoder_channels))):
        for number in range(3):
            h = plain_residual(w, f"{root}up.{level}.block.{number}", h, width)
        if level > 0:
            h = w.conv(f"{root}up.{level}.upsample.conv", resized(h, "up"), width)
    return w.conv(f"{root}conv_out", F.silu(w.norm(f"{root}norm_out", h, 1e-6)), 3)


SPECS = {
    "ldm4-bedroom": {
        "channels": 8,
        "multipliers": (1, 2, 3, 4),
        "attention_at": (2, 4, 8),
        "head_channels": 4,
    },
    "ldm8-church": {
        "channels": 8,
        "multipliers": (1, 2, 2, 4, 4),
        "attention_at": (1, 2, 4, 8),
        "latents": 4,
        "heads": 4,
        "film": True,
        "residual_resampling": True,
        "kl": True,
        "decoder_channels": (4, 8, 8, 8),
    },
    "ldm4-imagenet": {
        "channels": 8,
        "multipliers": (1, 2, 3, 5),
        "attention_at": (2, 4, 8),
        "heads": 1,
        "context": 6,
    },
}
CLASSES = 5
SIDE = 16
SCALE = 0.22


def shrunk(name: str, spec: Spec) -> Family:
    """The published family in small: the same blocks in the same places."""
    family = FAMILIES[name]
    widths = [spec.channels * one for one in spec.multipliers]
    network = {
        **family.network,
        "sample_size": SIDE,
        "block_out_channels": widths,
        "norm_num_groups": GROUPS,
    }
    if name == "ldm4-bedroom":
        network["attention_head_dim"] = spec.head_channels
    if name == "ldm8-church":
        network["attention_head_dim"] = [width // spec.heads for width in widths]
        network["attn_norm_num_groups"] = GROUPS
    if spec.context:
        network["cross_attention_dim"] = spec.context
    decoder = {
        **family.decoder,
        "sample_size": SIDE * 4,
        "block_out_channels": list(spec.decoder_channels),
        "norm_num_groups": GROUPS,
    }
    if not spec.kl:
        decoder["num_vq_embeddings"] = spec.codes
    return replace(family, network=network, decoder=decoder, classes=CLASSES if spec.context else 0)


@dataclass(frozen=True)
class Original:
    """A small CompVis model: what it computes, and its checkpoint."""

    spec: Spec
    family: Family

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """A copy of the checkpoint's tensors, with the tables of the noise schedule."""
        low, high = self.family.beta_start**0.5, self.family.beta_end**0.5
        betas = torch.linspace(low, high, 1000, dtype=torch.float64) ** 2
        more = {"betas": betas.float(), "alphas_cumprod": (1 - betas).cumprod(0).float()}
        if self.family.scaled:
            more["scale_factor"] = torch.tensor(SCALE)
        return {**self.spec.tensors, **more}

    def predict(self, x, t, context=None):
        """The U-Net's output in float64."""
        return unet(self.spec, x.double(), t, context)

    def decode(self, latents):
        """Images in float64, about [-1, 1], of latents as the U-Net knows them."""
        return decode(self.spec, latents.double() / (SCALE if self.family.scaled else 1.0))

    def encode(self, pixels):
        """What the encoder says of images, in float64."""
        return encode(self.spec, pixels.double())

    def classes(self) -> torch.Tensor:
        """`[classes, width]`."""
        name = "cond_stage_model.embedding.weight"
        return self.spec.tensors.read(name, CLASSES, self.spec.context)

    def save(self, path, tensors=None):
        """Writes a checkpoint; gives its path."""
        given = self.tensors if tensors is None else tensors
        if path.suffix == ".safetensors":
            save_file({name: value.contiguous() for name, value in given.items()}, path)
        else:
            torch.save({"epoch": 3, "global_step": 7, "state_dict": given}, path)
        return path


@pytest.fixture(scope="session")
def originals():
    """A small model of each layout, with every tensor that one run through it reads."""
    made = {}
    for name, numbers in SPECS.items():
        spec = Spec(**numbers)
        one = Original(spec, shrunk(name, spec))
        context = one.classes()[:1, None] if spec.context else None
        x = torch.zeros(1, spec.latents, SIDE, SIDE)
        one.predict(x, torch.zeros(1), context)
        one.decode(x)
        one.encode(torch.zeros(1, 3, 32, 32))
        made[name] = one
    return made


@pytest.fixture(params=sorted(SPECS))
def original(request, originals) -> Original:
    """Each in turn."""
    return originals[request.param]
