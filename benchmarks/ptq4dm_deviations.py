"""What deviations of `ptq4dm` from the released code are worth, on the embedded network.

    python benchmarks/ptq4dm_deviations.py [weights] [inputs] [options]

Weights: squared error of each channel at 4 bits on three grids. Inputs behind SiLU: the relative
error that 8 bits make of a layer's input when it is quantized with a symmetric range in front of
the layer (here), and when instead the tensor in front of norm and SiLU was quantized (there, where
layers' outputs are). Options: the relative error of predictions at W8A8, the bits of the released
script, at states of images that were not calibrated with. What options change in images is measured
by the suite `baselines/tfq-bench-ptq4dm/deviations.toml`.
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.nn.functional import silu

from tfq_bench.api import CalibrationNeeds, LoadedModel, Scheme
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant import (
    affine_from_range,
    fake_quantize,
    find_layer,
    mse_range,
    quantize,
    simulate,
)
from tfq_bench_cifar10.model import unconditional
from tfq_bench_ptq4dm.quantizer import Ptq4dm
from tfq_bench_ptq4dm.ranges import clip_range, weight_grid

BITS = 4
STEPS = 10
SAMPLES = 64
VALUES = 2**15

OPTIONS = (
    {},
    {"range_batch": 4},
    {"prefix": "float"},
    {"sampling": "uniform"},
    {"sampling": "mirrored"},
    {"sampling": "released"},
)
"""One at a time, beside 128 samples in updates of 32: 4 and 32 updates, as often as the preset
`full` with 256 and with 32."""


def load() -> LoadedModel:
    """The embedded CIFAR-10 network with DDIM."""
    model = unconditional()
    network = model.load(device="cpu", dtype=torch.float32)
    return LoadedModel(
        model=model,
        network=network,
        topology=model.topology(network),
        sampler=model.sampler("ddim", STEPS),
        device="cpu",
    )


def searched(rows, scale, zero_point):
    """Per row: the best of the candidates `[100, C]` by mean |error|^2.4, and its squared error."""
    best = torch.full_like(scale[0], torch.inf)
    squared, chosen = torch.empty_like(best), torch.empty_like(best)
    for s, z in zip(scale, zero_point, strict=True):
        error = fake_quantize(rows, s[:, None], z[:, None], BITS).sub_(rows).abs_()
        score = error.pow(2.4).mean(dim=1)
        better = score < best
        best = torch.where(better, score, best)
        squared = torch.where(better, error.square().mean(dim=1), squared)
        chosen = torch.where(better, s, chosen)
    return squared, chosen


def weights(loaded) -> None:
    """Prints how the squared errors of three grids compare."""
    ratios = {"c/7, zero point 8": [], "2c/15, zero point by float noise": []}
    lower, other_scale = [], []
    for layer in loaded.topology.layers:
        if layer.role in ("input", "output"):
            continue  # 8 bits under `uniform`
        rows = find_layer(loaded.network, layer.name).weight.detach().flatten(1)
        scale, zero_point = weight_grid(rows, BITS)
        ours = fake_quantize(rows, scale[:, None], zero_point[:, None], BITS)
        ours = ours.sub_(rows).square_().mean(dim=1)
        clips = rows.abs().amax(dim=1) * torch.arange(100, 0, -1)[:, None] / 100
        narrow, narrow_scale = searched(
            rows, *affine_from_range(-clips, clips, BITS, symmetric=True)
        )
        noisy, _ = searched(rows, *affine_from_range(-clips, clips, BITS))
        for name, error in zip(ratios, (narrow, noisy), strict=True):
            ratios[name].append(error / ours)
        lower.append(zero_point == 2 ** (BITS - 1) - 1)
        other_scale.append((narrow_scale / scale - 1).abs() > 0.01)
    print(f"| {BITS}-bit weights: squared error over that of the grid here | mean | largest |")
    print("|---|---|---|")
    for name, found in ratios.items():
        found = torch.cat(found)
        print(f"| {name} | {found.mean():.3f} | {found.max():.2f} |")
    share, moved = torch.cat(lower).float().mean(), torch.cat(other_scale).float().mean()
    print(f"\n{len(torch.cat(lower))} channels, {share:.0%} with zero point 7; the scale differs ")
    print(f"from c/7's by more than 1 % in {moved:.0%}.\n")


def relative_error(rounded, exact) -> float:
    """Norm of the error over that of the exact values."""
    return float((rounded - exact).norm() / exact.norm())


def rounded(x, method, generator):
    """The tensor with 8 bits and the range that `method` finds in some of its values; codes."""
    index = torch.randint(x.numel(), (VALUES,), generator=generator)
    scale, zero_point = affine_from_range(*method(x.reshape(1, -1)[:, index], 8), 8)
    return fake_quantize(x, scale, zero_point, 8), quantize(x, scale, zero_point, 8)


@torch.no_grad()
def inputs(loaded) -> None:
    """Prints what a symmetric range costs behind SiLU."""
    quantizer = Ptq4dm(scheme=Scheme(wbits=4, abits=8), samples=SAMPLES)
    needs = quantizer.calibration_needs(loaded, images=16)
    data = capture(loaded, needs, seed=1, batch=16, progress=lambda *_: None)
    generator = torch.Generator().manual_seed(0)
    last_norm, rows = [], []

    def at_norm(module, arguments) -> None:
        last_norm[:] = [module, arguments[0]]

    def at_layer(_, arguments) -> None:
        x = arguments[0]
        if not last_norm or last_norm[1].shape != x.shape:
            return
        norm, before = last_norm
        if not torch.equal(silu(norm.forward(before)), x):
            return
        here, codes = rounded(x, clip_range, generator)
        there, _ = rounded(before, clip_range, generator)
        free, _ = rounded(x, mse_range, generator)
        used = (int(codes.max()) - int(codes.min()) + 1) / 256
        errors = [relative_error(one, x) for one in (here, silu(norm.forward(there)), free)]
        rows.append((used, errors[0] / errors[1], errors[0] / errors[2]))

    for module in loaded.network.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_pre_hook(at_norm)
    for layer in loaded.topology.layers:
        find_layer(loaded.network, layer.name).register_forward_pre_hook(at_layer)
    loaded.model.predict(loaded.network, data.x, data.timestep, {})
    used, against_outputs, against_free = (sorted(column) for column in zip(*rows, strict=True))
    print(f"| {len(rows)} inputs behind norm and SiLU, {SAMPLES} samples | least | median | most |")
    print("|---|---|---|---|")
    for text, column in (
        ("codes that the symmetric range uses, share", used),
        ("relative error, over that of a quantizer in front of norm and SiLU", against_outputs),
        ("relative error, over that of an asymmetric MSE range in the same place", against_free),
    ):
        print(f"| {text} | {column[0]:.2f} | {column[len(column) // 2]:.2f} | {column[-1]:.2f} |")


@torch.no_grad()
def options(loaded) -> None:
    """Prints the error of predictions with one option after another."""
    steps = range(STEPS)
    held_out = capture(
        loaded,
        CalibrationNeeds(samples=tuple((step, image) for step in steps for image in range(4))),
        seed=2,
        batch=4,
        progress=lambda *_: None,
    )
    exact = loaded.model.predict(loaded.network, held_out.x, held_out.timestep, {})
    print("| W8A8, `uniform-io16`: error of predictions, % | all steps | noisiest | cleanest |")
    print("|---|---|---|---|")
    for given in OPTIONS:
        quantizer = Ptq4dm(
            scheme=Scheme(wbits=8, abits=8, policy="uniform-io16"),
            **{"samples": 128, "values": 2**13, "range_batch": 32, **given},
        )
        needs = quantizer.calibration_needs(loaded, images=16)
        data = capture(loaded, needs, seed=1, batch=16, progress=lambda *_: None)
        state = quantizer.quantize(
            loaded, data, generator=torch.Generator().manual_seed(0), progress=lambda *_: None
        )
        network = simulate(loaded, state).network
        found = loaded.model.predict(network, held_out.x, held_out.timestep, {})
        errors = [
            relative_error(found[rows], exact[rows])
            for rows in (slice(None), held_out.step == 0, held_out.step == STEPS - 1)
        ]
        name = ", ".join(f"`{key} = {value}`" for key, value in given.items()) or "default"
        print(f"| {name} | {' | '.join(f'{100 * error:.2f}' for error in errors)} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    parts = {"weights": weights, "inputs": inputs, "options": options}
    for part in sys.argv[1:] or parts:
        parts[part](load())
