"""Every product of a network on one GPU: the int8 kernel beside BF16 and fp8.

    python benchmarks/gpu_shapes.py sdxl --batch 2 > shapes.md
    python benchmarks/gpu_shapes.py sdxl --batch 2 --plain --tiles 4

The shapes are those of one call of the network (random weights), found by watching it. Numbers are
random; each call finds a cold second-level cache. int8 has the ending that the fused pass gives the
product (GEGLU to codes, time embedding, residual); BF16 and fp8 have the bias alone, so that their
other kernels come on top. Joined layers are one product in all three.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys

import torch
from gpu import networks
from gpu.products import bf16_call, fp8_call, int8_calls, specs_of
from gpu.shapes import Shape, watched_shapes
from gpu.timing import interleaved, number, table

from tfq_bench_cuda.kernels.runtime import Kernels
from tfq_bench_cuda.machine import check_machine

PEAK_TOPS = 1979
"""int8 products of an H100 SXM with dense operands, by its data sheet."""


def main(arguments: list[str]) -> int:
    """Measures and prints Markdown; returns the exit code."""
    args = parser().parse_args(arguments)
    torch.set_grad_enabled(False)
    torch.backends.cudnn.benchmark = True
    loaded = networks.load(networks.CASES[args.network]).half
    names = [layer.name for layer in loaded.topology.layers]
    run = networks.call(loaded, args.batch)
    counts = watched_shapes(loaded.network, names, run, endings=not args.plain)
    del loaded, run
    torch.cuda.empty_cache()
    kernels = Kernels(check_machine("cuda"), "cuda")
    specs = {shape: specs_of(shape, kernels.arch, kernels.gathers, args.tiles) for shape in counts}
    kernels.prepare(spec for some in specs.values() for spec in some)
    print(
        f"### Products of {args.network}, batch {args.batch}\n\n{torch.cuda.get_device_name()}, "
        f"torch {torch.__version__}, medians of {args.rounds} interleaved rounds, cold L2; peak "
        f"{PEAK_TOPS} TOPS.\n"
    )
    rows, sums, others = [], {"int8": 0.0, "bf16": 0.0}, []
    for shape, count in sorted(counts.items(), key=lambda one: -one[0].operations * one[1]):
        us = _microseconds(kernels, shape, specs[shape], args.rounds)
        rows.append(_row(kernels, shape, count, us, str(specs[shape][0].tile), specs[shape][0]))
        sums["int8"] += us[str(specs[shape][0].tile)] * count / 1e3
        sums["bf16"] += us["bf16"] * count / 1e3
        if args.tiles > 1:
            ranked = sorted((us[str(spec.tile)], str(spec.tile)) for spec in specs[shape])
            others.append(f"- {shape}: " + ", ".join(f"{tile} {t:.1f}" for t, tile in ranked))
    header = ["product and tile", "times", "int8 us", "TOPS", "of peak", "BF16 us", "x BF16"]
    print(table([*header, "fp8 us", "x fp8", "int8 ms a call"], rows))
    print(
        f"\n{sum(counts.values())} products in {len(counts)} shapes: int8 {sums['int8']:.2f} ms, "
        f"BF16 {sums['bf16']:.2f} ms, {sums['bf16'] / sums['int8']:.2f} times.\n"
    )
    print("\n".join(others))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    unets = [name for name in networks.CASES if name.startswith("sd")]
    made.add_argument("network", nargs="?", choices=unets, default="sdxl")
    made.add_argument("--batch", type=int, default=2, help="rows of a call")
    made.add_argument("--rounds", type=int, default=20)
    made.add_argument("--tiles", type=int, default=1, help="how many tiles to try for a shape")
    made.add_argument("--plain", action="store_true", help="bfloat16 out, nothing fused")
    return made


def _microseconds(kernels, shape: Shape, specs, rounds: int) -> dict[str, float]:
    calls = {"bf16": bf16_call(shape), **int8_calls(kernels, shape, specs)}
    if (fp8 := fp8_call(shape)) is not None:
        calls["fp8"] = fp8
    times = interleaved(calls, rounds, cold=True)
    return {label: statistics.median(values) * 1e3 for label, values in times.items()}


def _row(kernels, shape: Shape, count: int, us: dict[str, float], tile: str, spec) -> list[str]:
    mine, fp8 = us[tile], us.get("fp8", math.nan)
    tops = shape.operations / mine / 1e6
    words = kernels.name(spec).removeprefix("tilelang s8 ").partition(" ")[2]
    return [
        f"{shape}, {words.removesuffix(f' {shape.ending}')}",
        str(count),
        number(mine, 1),
        number(tops, 0),
        f"{tops / PEAK_TOPS:.0%}",
        number(us["bf16"], 1),
        number(us["bf16"] / mine),
        number(fp8, 1),
        number(fp8 / mine),
        number(mine * count / 1e3, 3),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
