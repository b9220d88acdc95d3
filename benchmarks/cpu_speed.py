"""Speed of the `cpu` backend against every usual way to run the same network on a CPU.

    python benchmarks/cpu_speed.py --threads 2 --batch 8 --rounds 30 > cpu_speed.md

All contestants live in one process and take turns, one call each per round, in an order that
rotates; what is compared is the ratio within a round, so a busy machine or a changing clock hits
all alike. Beside each time stands how far the output is from FP32 (signal to noise, in dB).

glibc gives large blocks back to the system after every call and faults them in again, which costs
every contestant up to a fifth of its time. The script therefore restarts itself with
`MALLOC_MMAP_THRESHOLD_` and `MALLOC_TRIM_THRESHOLD_` raised, for all contestants; `--plain-malloc`
leaves them alone.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import time
from collections.abc import Callable

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
BASELINE = "FP32 eager"


def main() -> int:
    """Measures and prints a Markdown table; returns the exit code."""
    args = _arguments()
    wanted = {"OMP_NUM_THREADS": str(args.threads), **({} if args.plain_malloc else MALLOC)}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})

    import torch

    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    loaded = _load(args.model, args.steps)
    x = torch.randn(
        (args.batch, *loaded.model.latent_shape), generator=torch.Generator().manual_seed(0)
    )
    calls, notes = _contestants(loaded, args, x)
    reference = calls[BASELINE]().float()
    quality = {name: _sqnr_db(reference, call().float()) for name, call in calls.items()}
    times = _interleaved(calls, args.rounds)
    print(_table(times, quality))
    print()
    print(
        f"{args.model}, batch {args.batch}, {args.threads} threads, {args.rounds} interleaved "
        f"rounds, medians with {_level(args.rounds)}, torch {torch.__version__}, {_processor()}, "
        f"{'default malloc' if args.plain_malloc else 'malloc thresholds raised'}."
    )
    for note in notes:
        print(f"- {note}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="cifar10", help="name of an installed model")
    parser.add_argument("--steps", type=int, default=10, help="sampler steps of the tables")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--plain-malloc", action="store_true", help="leave glibc's defaults")
    return parser.parse_args()


def _load(name, steps):
    """The model by its plugin, with the topology and the DDIM timesteps of a run."""
    import torch

    from tfq_bench.api import LoadedModel
    from tfq_bench.host.plugins import discover

    table = discover()
    model = table.create(table.get("model", name))
    network = model.load(device="cpu", dtype=torch.float32)
    return LoadedModel(
        model=model,
        network=network,
        topology=model.topology(network),
        sampler=model.sampler("ddim", steps),
        device="cpu",
    )


def _contestants(loaded, args, x) -> tuple[dict[str, Callable], list[str]]:
    """One call of the network per contestant, warmed up, and remarks on those left out."""
    import torch

    step = len(loaded.sampler.timesteps) // 2
    t = torch.full((args.batch,), loaded.sampler.timesteps[step])
    condition = loaded.model.conditions(range(args.batch), device="cpu")

    def call(network, inputs):
        return lambda: loaded.model.predict(network, inputs, t, condition)

    last = copy.deepcopy(loaded.network).to(memory_format=torch.channels_last)
    half = copy.deepcopy(last).bfloat16()
    x_last = x.contiguous(memory_format=torch.channels_last)
    calls = {
        BASELINE: call(loaded.network, x),
        "FP32 eager, channels last": call(last, x_last),
        "BF16 eager": call(half, x_last.bfloat16()),
    }
    notes = []
    compiled = {"FP32 compiled": (last, x_last), "BF16 compiled": (half, x_last.bfloat16())}
    for name, (network, inputs) in {} if args.no_compile else compiled.items():
        candidate = call(torch.compile(network, options={"freezing": True}), inputs)
        begin = time.perf_counter()
        try:
            candidate()
        except Exception as error:  # whatever stops the compiler, the others are still measured
            notes.append(f"{name} left out: {type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        notes.append(f"{name}: inductor with freezing, {time.perf_counter() - begin:.0f} s once.")
        calls[name] = candidate
    for wbits in (8, 4):
        lowered, remark = _lowered(loaded, wbits)
        lowered.step.set(step)
        lowered.executed.clear()
        name = f"cpu W{wbits}A8"
        calls[name] = call(lowered.network, x)
        calls[name]()
        fallbacks = sum(use.fallback is not None for use in lowered.kernels)
        notes.append(f"{name}: executed {lowered.executed}, {fallbacks} fallbacks; {remark}.")
    for candidate in calls.values():
        for _ in range(3):
            candidate()
    return calls, notes


def _lowered(loaded, wbits):
    """Round-to-nearest at W`wbits`A8, calibrated on the model's own trajectory; and its parity."""
    import torch

    from tfq_bench.api import Scheme
    from tfq_bench.pipeline.calibrate import capture
    from tfq_bench.quant.lower.parity import network_parity
    from tfq_bench.quant.lower.simulate import simulate
    from tfq_bench.quant.rtn import RoundToNearest
    from tfq_bench_cpu.backend import CpuBackend

    quantizer = RoundToNearest(scheme=Scheme(wbits=wbits, abits=8))
    needs = quantizer.calibration_needs(loaded, images=8)
    data = capture(loaded, needs, seed=0, batch=8, progress=lambda *_: None)
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        state = quantizer.quantize(loaded, data, generator=generator, progress=lambda *_: None)
    lowered = CpuBackend().lower(loaded, state)
    parity = network_parity(loaded, simulate(loaded, state), lowered)
    remark = (
        f"relative distance to the simulation {parity.relative:.2g}; sums at most "
        f"{_largest_sum(state):,} (float32 counts to {2**24:,})"
    )
    return lowered, remark


def _largest_sum(state) -> int:
    """What no sum of a state's layers can exceed, whatever the input: 255 times the weights'."""
    from tfq_bench.quant.lower.lowering import int8_weight

    return max(
        255 * int(int8_weight(part).long().abs().flatten(1).sum(1).max())
        for layer in state.layers.values()
        for part in layer.parts
    )


def _interleaved(calls, rounds) -> dict[str, list[float]]:
    """Milliseconds of every contestant in every round."""
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            begin = time.perf_counter()
            calls[name]()
            times[name].append((time.perf_counter() - begin) * 1e3)
    return times


def _sqnr_db(reference, output) -> float:
    """Signal to noise of an output against FP32, in dB; infinite when they are equal."""
    error = (reference.double() - output.double()).square().sum().item()
    signal = reference.double().square().sum().item()
    import math

    return math.inf if error == 0 else 10 * math.log10(signal / error)


def _table(times, quality) -> str:
    """Medians with their intervals: of the time, and of the ratios within a round; SQNR."""
    rows = [
        "| network | ms | x FP32 eager | x FP32 compiled | SQNR dB |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, values in times.items():
        cells = [_median(values, 1)]
        for base in (BASELINE, "FP32 compiled"):
            known = times.get(base)
            ratios = known and [b / v for b, v in zip(known, values, strict=True)]
            cells.append("-" if not ratios else "1" if base == name else _median(ratios, 2))
        rows.append(f"| {name} | {' | '.join(cells)} | {quality[name]:.1f} |")
    return "\n".join(rows)


def _median(values: list[float], digits: int) -> str:
    """`median [low, high]`, the interval from order statistics."""
    from tfq_bench.stats.intervals import median_interval

    text, interval = f"{statistics.median(values):.{digits}f}", median_interval(values)
    if interval is None:
        return text
    return f"{text} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def _level(rounds: int) -> str:
    """How sure the intervals are: few rounds do not reach 95 %."""
    from tfq_bench.stats.intervals import median_interval

    interval = median_interval(range(rounds))
    return "no intervals" if interval is None else f"{interval.level:.0%} intervals"


def _processor() -> str:
    import torch

    try:
        return str(torch.cpu.get_capabilities()["cpu_name"])
    except (AttributeError, KeyError):
        return torch.backends.cpu.get_cpu_capability()


if __name__ == "__main__":
    sys.exit(main())
