"""Speed of the backends `cpu` and `openvino` against every usual way to run the same network.

    python benchmarks/cpu_speed.py --threads 2 --rounds 30 > cpu_speed.md
    python benchmarks/cpu_speed.py --network sd15 --rounds 5 --skip BF16 "channels last"

All contestants live in one process and take turns, one call each per round, in an order that
rotates; what is compared is the ratio within a round, so a busy machine or a changing clock hits
all alike. Beside each time stands how far the output is from FP32 (signal to noise, in dB).

glibc gives large blocks back to the system after every call and faults them in again, which costs
every contestant up to a fifth of its time. The script therefore restarts itself with
`MALLOC_MMAP_THRESHOLD_` and `MALLOC_TRIM_THRESHOLD_` raised, for all contestants; `--plain-malloc`
leaves them alone. Contestants are in `benchmarks/cpu/contestants.py`.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
BASES = ("FP32 eager", "FP32 compiled", "OpenVINO FP32")


def main() -> int:
    """Measures and prints a Markdown table; returns the exit code."""
    args = _arguments()
    wanted = {"OMP_NUM_THREADS": str(args.threads), **({} if args.plain_malloc else MALLOC)}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})

    import torch

    from benchmarks.cpu.networks import load

    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    case = load(args.network, args.batch)
    calls, notes = _contestants(case, args.skip)
    reference = calls[BASES[0]]().float()
    quality = {name: _sqnr_db(reference, call().float()) for name, call in calls.items()}
    times = _interleaved(calls, args.rounds)
    print(_table(times, quality))
    print()
    print(
        f"{args.network}, batch {len(case.x)}, {args.threads} threads, {args.rounds} interleaved "
        f"rounds, medians with {_level(args.rounds)}, torch {torch.__version__}, {_processor()}, "
        f"{'default malloc' if args.plain_malloc else 'malloc thresholds raised'}."
    )
    for note in notes:
        print(f"- {note}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", default="cifar10", choices=("cifar10", "sd15"))
    parser.add_argument("--batch", type=int, help="8 of cifar10, 1 of sd15")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--skip", nargs="+", default=[], metavar="TEXT", help="leave contestants out by their name"
    )
    parser.add_argument("--plain-malloc", action="store_true", help="leave glibc's defaults")
    return parser.parse_args()


def _contestants(case, skipped) -> tuple[dict[str, Callable], list[str]]:
    """One call of the network per contestant, warmed up, and remarks on them."""
    from benchmarks.cpu.contestants import BASELINE, CONTESTANTS

    calls, notes = {}, []
    for name, make in CONTESTANTS.items():
        if name != BASELINE and any(text in name for text in skipped):
            continue
        try:
            contestant = make(case)
            for _ in range(2):
                contestant.call()
        except Exception as error:  # whatever stops one, the others are still measured
            notes.append(f"{name} left out: {type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        calls[name] = contestant.call
        if contestant.remark:
            notes.append(f"{name}: {contestant.remark}.")
        print(f"{name} is ready", file=sys.stderr)
    return calls, notes


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
    return math.inf if error == 0 else 10 * math.log10(signal / error)


def _table(times, quality) -> str:
    """Medians with their intervals: of the time, and of the ratios within a round; SQNR."""
    rows = [
        f"| contestant | ms | {' | '.join(f'x {base}' for base in BASES)} | SQNR dB |",
        f"|---|---:|{'---:|' * len(BASES)}---:|",
    ]
    for name, values in times.items():
        cells = [_median(values, 1)]
        for base in BASES:
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
