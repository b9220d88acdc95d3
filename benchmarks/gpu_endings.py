"""Speed of linear layers with what follows them in one kernel, beside BF16 in torch.

    python benchmarks/gpu_endings.py [--tiles 4] [--policy rows]

SD-XL's transformer blocks (1024 pixels, two images) with random numbers; medians of interleaved
rounds by CUDA events, each call finds a cold second-level cache.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
from functools import partial

from gpu_speed import _interleaved

# Rows, inputs, outputs, and how it ends.
SHAPES = [
    (2048, 1280, 1280, "plain"),
    (2048, 1280, 1280, "residual"),
    (2048, 5120, 1280, "plain"),
    (2048, 5120, 1280, "residual"),
    (8192, 640, 640, "plain"),
    (8192, 640, 640, "residual"),
    (8192, 2560, 640, "plain"),
    (8192, 2560, 640, "residual"),
    (2048, 1280, 5120, "geglu"),
    (8192, 640, 2560, "geglu"),
    (8192, 640, 640, "gated residual"),
    (2048, 1280, 1280, "codes"),
]


def main() -> None:
    """Prints a line of Markdown for each shape, tiles in the order of their times."""
    import torch
    import torch.nn.functional as F

    from tfq_bench_cuda.kernels.compiled import load
    from tfq_bench_cuda.kernels.operands import Additions, Factors, asked
    from tfq_bench_cuda.kernels.runtime import Kernels
    from tfq_bench_cuda.kernels.specs import Ending, LinearSpec
    from tfq_bench_cuda.kernels.tiles import candidates
    from tfq_bench_cuda.machine import check_machine

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tiles", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--policy", choices=["square", "rows"], default="square")
    parser.add_argument("--collect", action="store_true", help="residuals through shared memory")
    arguments = parser.parse_args()
    load()
    ending_module = importlib.import_module("tfq_bench_cuda.kernels.programs.ending")
    ending_module._COLLECTED = arguments.collect
    endings = {
        "plain": Ending(out="bfloat16"),
        "residual": Ending(residual="bfloat16", out="bfloat16"),
        "geglu": Ending(activation="geglu", out="int8"),
        "gated residual": Ending(gate=True, residual="bfloat16", out="bfloat16"),
        "codes": Ending(out="int8"),
    }
    kernels = Kernels(check_machine("cuda"), "cuda")
    if arguments.policy == "rows":
        rows_first = load().language.GemmWarpPolicy.FullRow
        linear = importlib.import_module("tfq_bench_cuda.kernels.programs.linear")
        linear._policy = lambda _: rows_first
    todo = {}
    for rows, inputs, outputs, name in SHAPES:
        accumulators = 2 if name == "geglu" else 1
        tiles = candidates(rows, outputs, inputs, kernels.arch, accumulators=accumulators)
        todo[rows, inputs, outputs, name] = [
            LinearSpec(n=outputs, k=inputs, ending=endings[name], tile=tile)
            for tile in tiles[: arguments.tiles]
            if tile.m >= tile.threads // 2  # whole rows for each group of warps
        ]
    kernels.prepare(spec for specs in todo.values() for spec in specs)
    print("| rows, inputs, outputs, ending | BF16 us | int8 us | x BF16 | tiles |")
    print("|---|---:|---:|---:|---|")
    for (rows, inputs, outputs, name), specs in todo.items():
        width = specs[0].weights
        code = torch.randint(-128, 128, (rows, inputs), device="cuda").to(torch.int8)
        weight = torch.randint(-128, 128, (width, inputs), device="cuda").to(torch.int8)
        factors = Factors(
            weight=weight,
            sums=weight.sum(1, dtype=torch.int32),
            step=torch.zeros(1, dtype=torch.int64, device="cuda"),
            scale=torch.ones(1, device="cuda"),
            zero_point=torch.full((1,), 100, dtype=torch.int32, device="cuda"),
            weight_scale=torch.full((width,), 1e-4 / inputs**0.5, device="cuda"),
            bias=torch.randn(width, device="cuda"),
        )
        values = {
            "gate": torch.randn(2, outputs, device="cuda"),
            "residual": torch.randn(rows, outputs, device="cuda", dtype=torch.bfloat16),
            "inverse": torch.full((1,), 30.0, device="cuda"),
            "zero_point": torch.full((1,), 128, dtype=torch.int32, device="cuda"),
        }
        additions = Additions(**{key: values[key] for key in asked(specs[0].ending)})
        x = torch.randn(rows, inputs, device="cuda", dtype=torch.bfloat16)
        w = torch.randn(width, inputs, device="cuda", dtype=torch.bfloat16)
        b = factors.bias.bfloat16()

        def eager(x=x, w=w, b=b, name=name, residual=values["residual"]):
            y = F.linear(x, w, b)
            if name == "geglu":
                value, gate = y.chunk(2, dim=1)
                return value * F.gelu(gate)
            return y + residual if "residual" in name else y

        calls = {"bf16": eager}
        for spec in specs:
            label = f"{spec.tile} {kernels.name(spec).split()[4]}"
            calls[label] = partial(kernels.linear, spec, code, factors, additions)
        times = _interleaved(calls, arguments.rounds, cold=True)
        us = {label: statistics.median(found) * 1e3 for label, found in times.items()}
        half = us.pop("bf16")
        ranked = sorted(us.items(), key=lambda item: item[1])
        print(
            f"| {rows}, {inputs}, {outputs}, {name} | {half:.1f} | {ranked[0][1]:.1f} | "
            f"{half / ranked[0][1]:.2f} | " + ", ".join(f"{k} {v:.1f}" for k, v in ranked) + " |",
            flush=True,
        )


if __name__ == "__main__":
    main()
