"""PTQ4DM's weight grid on trained weights: what it is worth over a grid that ends at the clip."""

from __future__ import annotations

import torch

from tfq_bench.quant import affine_from_range, fake_quantize, find_layer
from tfq_bench_cifar10.model import unconditional
from tfq_bench_ptq4dm.ranges import weight_grid

LAYERS = 6


def _error_on_the_narrow_grid(rows):
    """Squared error a channel with s = c / 7 and zero point 8, c the best of 100 clips."""
    clips = rows.abs().amax(dim=1) * torch.arange(1.0, 101.0)[:, None] / 100
    scale, zero_point = affine_from_range(-clips, clips, 4, symmetric=True)
    rounded = fake_quantize(rows, scale[..., None], zero_point[..., None], 4) - rows
    best = rounded.abs().pow(2.4).mean(dim=2).argmin(dim=0)
    return rounded[best, torch.arange(len(rows))].square().mean(dim=1)


def test_error_of_trained_weights_falls_by_about_six_percent():
    """Mean over channels at 4 bits; benchmarks/ptq4dm_deviations.py has all layers."""
    model = unconditional()
    network = model.load(device="cpu", dtype=torch.float32)
    names = [
        layer.name
        for layer in model.topology(network).layers
        if layer.role not in ("input", "output")
    ]
    kept = []
    for name in names[:: len(names) // LAYERS]:
        rows = find_layer(network, name).weight.flatten(1)[:32]
        scale, zero_point = weight_grid(rows, 4)
        ours = fake_quantize(rows, scale[:, None], zero_point[:, None], 4) - rows
        kept.append(ours.square().mean(dim=1) / _error_on_the_narrow_grid(rows))
    assert len(kept) >= LAYERS
    assert 0.04 < 1 - float(torch.cat(kept).mean()) < 0.08
