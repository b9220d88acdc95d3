"""Speed of the `cuda` backend on one GPU against the usual ways to run the same network.

    python benchmarks/gpu_speed.py --batch 64 --batch 256 > gpu_speed.md

Two tables. *Networks*: the embedded U-Net, one call per contestant and round, in an order that
rotates; what is compared is the ratio within a round. *Layers*: convolutions and linear layers of
SD-XL's UNet (1024 pixels, two images) with random numbers, product and quantization apart, beside
cuDNN and cuBLAS in BF16; each call finds a cold second-level cache.

Times are CUDA events around a call. In eager execution the host may be slower than the GPU; a
captured graph leaves it out.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

BASELINE = "FP32 eager"
PEAK_TOPS = 1979
"""int8 products of an H100 SXM with dense operands, by its data sheet."""

# Rows (or images and pixels a side), inputs, outputs; how often one call of the UNet runs it.
LINEAR = {
    "1280 attention projection": (2048, 1280, 1280),
    "1280 feed-forward in": (2048, 1280, 10240),
    "1280 feed-forward out": (2048, 5120, 1280),
    "640 attention projection": (8192, 640, 640),
    "640 feed-forward in": (8192, 640, 5120),
    "640 feed-forward out": (8192, 2560, 640),
    "text keys, 1280": (154, 2048, 1280),
}
CONV = {
    "320 at 128": (2, 128, 320, 320),
    "640 at 128 (up)": (2, 128, 640, 320),
    "640 at 64": (2, 64, 640, 640),
    "1280 at 64 (up)": (2, 64, 1280, 640),
    "1280 at 32": (2, 32, 1280, 1280),
    "2560 at 32 (up)": (2, 32, 2560, 1280),
    "4 at 128 (in)": (2, 128, 4, 320),
    "320 at 128 (out)": (2, 128, 320, 4),
}


def main() -> int:
    """Measures and prints Markdown; returns the exit code."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="cifar10", help="name of an installed model")
    parser.add_argument("--batch", type=int, action="append", help="may be given again")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--no-networks", action="store_true")
    parser.add_argument("--no-layers", action="store_true")
    parser.add_argument("--tiles", type=int, default=1, help="how many tiles to try for a layer")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.backends.cudnn.benchmark = True
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}, "
        f"medians of {args.rounds} interleaved rounds.\n"
    )
    if not args.no_networks:
        for batch in args.batch or [64, 256]:
            networks(args.model, batch, args.rounds)
    if not args.no_layers:
        layers(args.rounds, args.tiles)
    return 0


def networks(name: str, batch: int, rounds: int) -> None:
    """The table of one model at one batch size."""
    import torch

    from tfq_bench.api import LoadedModel
    from tfq_bench.host.plugins import discover

    table = discover()
    model = table.create(table.get("model", name))

    network = model.load(device="cuda", dtype=torch.float32)
    full = LoadedModel(
        model=model,
        network=network,
        topology=model.topology(network),
        sampler=model.sampler("ddim", 10),
        device="cuda",
    )
    half = replace(full, network=model.load(device="cuda", dtype=torch.bfloat16))
    x = torch.randn((batch, *model.latent_shape), generator=torch.Generator().manual_seed(0)).cuda()
    t = torch.full((batch,), full.sampler.timesteps[5], device="cuda")
    condition = model.conditions(range(batch), device="cuda")

    def call(network, tf32=False, dtype=torch.float32):
        inputs = x.to(dtype)

        def run():
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
            return model.predict(network, inputs, t, condition)

        return run

    last = copy.deepcopy(half.network).to(memory_format=torch.channels_last)
    calls: dict[str, Callable] = {
        BASELINE: call(full.network),
        "TF32 eager": call(full.network, tf32=True),
        "BF16 eager": call(last, dtype=torch.bfloat16),
    }
    notes = []
    for wbits in (8, 4):
        state = _state(full, wbits)
        for loaded, kind, dtype in (
            (full, "FP32", torch.float32),
            (half, "BF16", torch.bfloat16),
        ):
            lowered, remark = _lowered(loaded, state, batch)
            lowered.step.set(5)
            label = f"cuda W{wbits}A8 in a {kind} network"
            notes.append(f"{label}: {remark}")
            if wbits == 8:
                calls[f"{label}, eager"] = call(lowered.network, dtype=dtype)
            calls[f"{label}, CUDA graph"] = _captured(call(lowered.network, dtype=dtype))
    calls["FP32 CUDA graph"] = _captured(calls[BASELINE])
    calls["BF16 CUDA graph"] = _captured(calls["BF16 eager"])
    reference = calls[BASELINE]().double()
    quality = {label: _sqnr_db(reference, run().double()) for label, run in calls.items()}
    times = _interleaved(calls, rounds, cold=False)
    print(f"### {name}, batch {batch}\n")
    print("| network | ms | x FP32 eager | x BF16 CUDA graph | SQNR dB |")
    print("|---|---:|---:|---:|---:|")
    for label, values in times.items():
        ratios = " | ".join(
            f"{statistics.median(b / v for b, v in zip(times[base], values, strict=True)):.2f}"
            for base in (BASELINE, "BF16 CUDA graph")
        )
        median = statistics.median(values)
        print(f"| {label} | {median:.3f} | {ratios} | {quality[label]:.1f} |")
    print()
    for note in notes:
        print(f"- {note}")
    print(flush=True)


def _state(loaded, wbits):
    """Round to nearest, calibrated on the model's own trajectory."""
    import torch

    from tfq_bench.api import Scheme
    from tfq_bench.pipeline.calibrate import capture
    from tfq_bench.quant import RoundToNearest

    quantizer = RoundToNearest(scheme=Scheme(wbits=wbits, abits=8))
    needs = quantizer.calibration_needs(loaded, images=8)
    data = capture(loaded, needs, seed=0, batch=8, progress=lambda *_: None)
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        return quantizer.quantize(loaded, data, generator=generator, progress=lambda *_: None)


def _lowered(loaded, state, batch):
    """The state on the kernels, and what they are."""
    import time

    from tfq_bench_cuda.backend import CudaBackend

    begin = time.perf_counter()
    lowered = CudaBackend(batch=batch).lower(loaded, state)
    seconds = time.perf_counter() - begin
    kernels = Counter(use.kernel for use in lowered.kernels)
    fallbacks = sum(use.fallback is not None for use in lowered.kernels)
    listed = ", ".join(f"{n} x {kernel}" for kernel, n in kernels.items())
    return lowered, f"lowered in {seconds:.1f} s, {fallbacks} fallbacks; {listed}."


def layers(rounds: int, tiles: int) -> None:
    """The table of SD-XL's layers."""
    import torch
    import torch.nn.functional as F

    from tfq_bench_cuda.kernels.borders import Geometry, border_sums, positions
    from tfq_bench_cuda.kernels.runtime import Kernels
    from tfq_bench_cuda.kernels.specs import ConvSpec, Ending, LinearSpec, QuantizeSpec, padded
    from tfq_bench_cuda.kernels.tiles import candidates
    from tfq_bench_cuda.machine import check_machine

    kernels = Kernels(check_machine("cuda"), "cuda")
    square = Geometry(kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1))
    todo: dict[str, list] = {}
    for name, (rows, inputs, outputs) in LINEAR.items():
        todo[name] = [
            LinearSpec(n=outputs, k=inputs, ending=Ending(out="bfloat16"), tile=tile)
            for tile in candidates(rows, outputs, inputs, kernels.arch)[:tiles]
        ]
    for name, (images, side, inputs, outputs) in CONV.items():
        depth = padded(inputs)
        todo[name] = [
            ConvSpec(
                n=outputs,
                c=depth,
                geometry=square,
                gather=kernels.gathers,
                ending=Ending(out="bfloat16"),
                tile=tile,
            )
            for tile in candidates(images * side**2, outputs, depth, kernels.arch)[:tiles]
        ]
    kernels.prepare(spec for specs in todo.values() for spec in specs)
    print("### Layers of SD-XL's UNet, 1024 pixels, two images\n")
    print("| layer | BF16 us | int8 us | TOPS | of peak | x BF16 | quantize us | x BF16, both |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    others = []
    step, one = torch.zeros(1, dtype=torch.int64, device="cuda"), torch.ones(1, device="cuda")
    zero_point = torch.full((1,), 100, dtype=torch.int32, device="cuda")
    for name, specs in todo.items():
        first = specs[0]
        scale, bias = torch.rand(first.n, device="cuda"), torch.randn(first.n, device="cuda")
        half = bias.bfloat16()
        ending = (step, one, zero_point, scale, bias, None)
        if isinstance(first, LinearSpec):
            rows, inputs, _ = LINEAR[name]
            x = torch.randn(rows, inputs, device="cuda", dtype=torch.bfloat16)
            w = torch.randn(first.n, inputs, device="cuda", dtype=torch.bfloat16)
            products = 2 * rows * inputs * first.n
            code = torch.randint(-128, 128, (rows, inputs), device="cuda").to(torch.int8)
            weight = torch.randint(-128, 128, (first.n, inputs), device="cuda").to(torch.int8)
            operands = (code, weight, weight.sum(1, dtype=torch.int32))
            calls = {"bf16": lambda x=x, w=w, b=half: F.linear(x, w, b)}
            method, flat = kernels.linear, x
        else:
            images, side, inputs, _ = CONV[name]
            x = torch.randn(images, inputs, side, side, device="cuda", dtype=torch.bfloat16)
            x = x.to(memory_format=torch.channels_last)
            w = torch.randn(first.n, inputs, 3, 3, device="cuda", dtype=torch.bfloat16)
            w = w.to(memory_format=torch.channels_last)
            products = 2 * images * side**2 * inputs * 9 * first.n
            shape = (images, side, side, first.c)
            code = torch.randint(-128, 128, shape, device="cuda").to(torch.int8)
            taps = torch.randint(-128, 128, (first.n, 3, 3, first.c)).to(torch.int8)
            sums = border_sums(taps.permute(0, 3, 1, 2), square, (side, side)).cuda()
            place = positions(square, (side, side)).cuda()
            operands = (code, taps.reshape(first.n, -1).cuda(), sums, place)
            calls = {"bf16": lambda x=x, w=w, b=half: F.conv2d(x, w, b, padding=1)}
            method, flat = kernels.conv2d, x.permute(0, 2, 3, 1).reshape(-1, inputs)
        how = QuantizeSpec(
            planes=False, total=inputs, start=0, channels=inputs, dtype="bfloat16", bits=8
        )
        calls["quantize"] = lambda how=how, flat=flat: kernels.quantize(
            how, flat, step, one, zero_point
        )
        for spec in specs:
            calls[str(spec.tile)] = partial(method, spec, *operands, *ending)
        times = _interleaved(calls, rounds, cold=True)
        us = {label: statistics.median(values) * 1e3 for label, values in times.items()}
        mine = us[str(first.tile)]
        tops = products / mine / 1e6
        print(
            f"| {name}, {kernels.name(first).removeprefix('tilelang s8 ')} | {us['bf16']:.1f} | "
            f"{mine:.1f} | {tops:.0f} | {tops / PEAK_TOPS:.0%} | {us['bf16'] / mine:.2f} | "
            f"{us['quantize']:.1f} | {us['bf16'] / (mine + us['quantize']):.2f} |",
            flush=True,
        )
        if tiles > 1:
            ranked = sorted((us[str(spec.tile)], str(spec.tile)) for spec in specs)
            others.append(f"- {name}: " + ", ".join(f"{tile} {t:.1f}" for t, tile in ranked))
    print()
    for line in others:
        print(line)


def _captured(run: Callable) -> Callable:
    """Replays of a CUDA graph of `run`, after warming up on a side stream."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()

    def replay(_kept=run):  # the graph reads the network's tensors, but does not hold them
        graph.replay()
        return found

    return replay


def _interleaved(calls, rounds, *, cold) -> dict[str, list[float]]:
    """Milliseconds of every contestant in every round, by CUDA events."""
    import torch

    flush = torch.empty(256 * 2**20, dtype=torch.int8, device="cuda") if cold else None
    for run in calls.values():
        for _ in range(3):
            run()
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            if flush is not None:
                flush.zero_()  # also keeps the GPU busy while the host gets ready
            else:
                torch.cuda.synchronize()
            begin.record()
            calls[name]()
            end.record()
            torch.cuda.synchronize()
            times[name].append(begin.elapsed_time(end))
    return times


def _sqnr_db(reference, output) -> float:
    """Signal to noise of an output against FP32, in dB; infinite when they are equal."""
    error = (reference - output).square().sum().item()
    return math.inf if error == 0 else 10 * math.log10(reference.square().sum().item() / error)


if __name__ == "__main__":
    sys.exit(main())
