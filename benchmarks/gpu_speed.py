"""Speed of the `cuda` backend on one GPU against the usual ways to run the same network.

    python benchmarks/gpu_speed.py sdxl --batch 2 --rounds 10 > sdxl.md
    python benchmarks/gpu_speed.py                            # all networks, all batches
    python benchmarks/gpu_speed.py sdxl --batch 2 --compile --torchao
    python benchmarks/gpu_speed.py sdxl --batch 2 --start     # load to first step, cold and warm
    python benchmarks/gpu_speed.py sdxl --batch 2 --levels blocks+graph --widths 8 --profile
    python benchmarks/gpu_speed.py dit --levels blocks+graph --without modulations
    python benchmarks/gpu_speed.py cifar10 --batch 500 --levels blocks+graph --simulate

One table for each network and batch: four calls in a row per contestant and round, behind one that
does not count, as the steps of a sampler follow each other; contestants in an order that rotates.
What is compared is the ratio within a round. Times are CUDA events. In eager execution the host may
be slower than the GPU; a captured graph leaves it out. Networks have random weights except for the
embedded one; their SQNR says that the same network was run, not how well it would draw. Each
network runs in a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from gpu import contestants, networks, profiles, states
from gpu.timing import interleaved, number, ratio, sqnr_db, table

from tfq_bench_cuda.backend import PASSES


def main(arguments: list[str]) -> int:
    """Measures and prints Markdown; returns the exit code."""
    options = parser()
    args = options.parse_args(arguments)
    chosen = args.network or list(networks.CASES)
    if strangers := [name for name in chosen if name not in networks.CASES]:
        options.error(f"expected networks of {', '.join(networks.CASES)}, found {strangers[0]}")
    if len(chosen) > 1:
        rest = [word for word in arguments if word not in networks.CASES]
        codes = [_child([name, *rest]) for name in chosen]
        return max(codes)
    (name,) = chosen
    if args.start:
        return start(name, arguments)
    torch.set_grad_enabled(False)
    torch.backends.cudnn.benchmark = True
    if args.first_step:
        print(first_step(name, args))
        return 0
    measure(name, args)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("network", nargs="*", help=f"of {', '.join(networks.CASES)}; all when none is named")
    add("--batch", type=int, nargs="+", help="rows of a call; else those of the network")
    add("--rounds", type=int, default=10)
    add("--levels", nargs="+", choices=contestants.LEVELS, default=list(contestants.LEVELS))
    add("--widths", type=int, nargs="+", choices=(8, 4), default=[8, 4], help="of weights")
    add(
        "--without",
        nargs="+",
        choices=tuple(PASSES),
        default=[],
        help="also the backend without these passes between blocks, each alone and all",
    )
    add("--compile", action="store_true", help="also torch.compile; minutes for large networks")
    add("--torchao", action="store_true", help="also torchao int8 and fp8, compiled")
    add("--simulate", action="store_true", help="also the simulation in float32")
    add("--profile", action="store_true", help="kernels of one call of the last `cuda` contestant")
    add("--start", action="store_true", help="only the time to the first step, cold and warm")
    add("--first-step", action="store_true", help=argparse.SUPPRESS)
    return made


def measure(name: str, args: argparse.Namespace) -> None:
    """The tables of one network."""
    case = networks.CASES[name]
    begin = time.perf_counter()
    loaded = networks.load(case)
    seconds = time.perf_counter() - begin
    ranges = states.observed_ranges(loaded.full, images=1 if case.random else 8)
    made = {wbits: states.rounded_state(loaded.full, ranges, wbits=wbits) for wbits in args.widths}
    for batch in args.batch or case.batches:
        _heading(name, case, loaded.full, batch, args.rounds)
        took = f"loaded in {seconds:.0f} s, all of it ready"
        _one_batch(loaded, made, batch, args, f"{took} after {time.perf_counter() - begin:.0f} s")
        gc.collect()
        torch.cuda.empty_cache()


def _one_batch(loaded, made, batch: int, args: argparse.Namespace, took: str) -> None:
    ways = list(contestants.plain(loaded, batch))
    notes = []
    if args.compile:
        ways.append(contestants.compiled(loaded, batch))
    for kind in ("int8", "fp8") if args.torchao else ():
        found = contestants.torchao(loaded, batch, kind)
        (notes if isinstance(found, str) else ways).append(found)
    if args.simulate:
        ways += [contestants.simulated(loaded, state, batch) for state in made.values()]
    kept = []  # a lowered network lives as long as its calls
    for wbits, state in made.items():
        for level in args.levels:
            # Each pass left out alone, then all, then none: the last is what is profiled.
            left_out = [(one,) for one in args.without] if len(args.without) > 1 else []
            left_out += [tuple(args.without)] if args.without else []
            for without in (*left_out, ()):
                way, lowered = contestants.cuda(
                    loaded, state, batch, level, packed=wbits == 4, without=without
                )
                ways.append(way)
                kept.append(lowered)
    reference = ways[0].run().clone()
    quality = {way.label: sqnr_db(reference, way.run()) for way in ways}
    times = interleaved({way.label: way.run for way in ways}, args.rounds, cold=False, in_a_row=4)
    bases = (contestants.BASELINE, contestants.GRAPH, contestants.COMPILED)
    bases = tuple(base for base in bases if base in times)
    header = ["network", "ms", *(f"x {base}" for base in bases), "SQNR dB", "weights GB"]
    rows = [
        [
            way.label,
            number(statistics.median(times[way.label]), 3),
            *(number(ratio(times, base, way.label)) for base in bases),
            number(quality[way.label], 1),
            "" if way.bytes is None else number(way.bytes / 1e9, 3),
        ]
        for way in ways
    ]
    print(table(header, rows))
    notes += [f"{way.label}: {'; '.join(way.notes)}." for way in ways if way.notes]
    print("".join(f"\n- {note}" for note in [f"{took}.", *notes]), end="\n\n", flush=True)
    if args.profile and kept:
        kernels = profiles.profiled(ways[-1].run)
        print(f"#### Kernels of one call: {ways[-1].label}\n")
        print(table(["kernel", "launches", "ms", "share"], profiles.lines(kernels)), flush=True)
        print()


def first_step(name: str, args: argparse.Namespace) -> str:
    """A row of `start`: this process, with the caches that it finds."""
    case = networks.CASES[name]
    loaded = networks.load(case)
    ranges = states.observed_ranges(loaded.full, images=1 if case.random else 8)
    state = states.rounded_state(loaded.full, ranges, wbits=args.widths[0])
    batch = (args.batch or case.batches)[0]
    packed = args.widths[0] == 4
    way, _ = contestants.cuda(loaded, state, batch, args.levels[-1], packed=packed)
    return f"{way.label}: {'; '.join(way.notes)}."


def start(name: str, arguments: list[str]) -> int:
    """Two processes one after the other, with caches that are empty for the first."""
    print(f"### {name}: load to first step, state in the GPU's memory\n", flush=True)
    rest = [word for word in arguments if word != "--start"]
    with tempfile.TemporaryDirectory() as folder:
        caches = {f"{tool}_CACHE_DIR": f"{folder}/{tool}" for tool in ("TILELANG", "TRITON")}
        for word in ("cold", "warm"):
            print(f"- {word}, {len(os.sched_getaffinity(0))} cores: ", end="", flush=True)
            if code := _child([*rest, "--first-step"], **caches):
                return code
    return 0


def _heading(name, case, loaded, batch: int, rounds: int) -> None:
    c, h, w = loaded.model.latent_shape
    weights = "random weights" if case.random else "its own weights"
    print(
        f"### {name}, batch {batch}\n\n{case.model}, state {c}x{h}x{w}, {weights}; "
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}; "
        f"medians of {rounds} interleaved rounds of 4 calls in a row. FP32 eager and TF32 in NCHW, "
        "BF16 with channels last; `cuda` in the BF16 network.\n"
    )


def _child(arguments: list[str], **environment: str) -> int:
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, check=False, env={**os.environ, **environment}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
