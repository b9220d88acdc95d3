"""The U-Net of latent diffusion models as CompVis lays it out."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .compvis_layers import Spec, attend, resized


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
