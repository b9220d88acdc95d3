"""The autoencoder of latent diffusion models as CompVis lays it out."""

from __future__ import annotations

import torch.nn.functional as F

from .compvis_layers import Spec, attend, resized


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
