"""Speed of the backends `cpu` and `openvino` against every usual way to run the same network.

    python benchmarks/cpu_speed.py --threads 2 > cpu_speed.md
    python benchmarks/cpu_speed.py --network sd15 --skip compiled
    python benchmarks/cpu_speed.py --network sdxl --size 512 --folder /tmp/sdxl-512
    taskset -c 0,2 python benchmarks/cpu_speed.py --network sdxl --at-once 0      # 128 GiB

Every contestant lives in a process of its own, and they take turns, one call each per round, in an
order that rotates: no two compute at the same time. What is compared is the ratio within a round,
so a busy machine or a changing clock hits all alike. Beside each time stands how far the output is
from FP32 (signal to noise, in dB); SD 1.5 and SDXL have random weights, so theirs says that the
same network was run, not how well it draws.

Of large networks not all fit into memory: FP32 eager stays, and the others come beside it
`--at-once` at a time. Two that were never there together have no round in common, and the table
gives the quotient of their ratios to FP32 eager, marked `~`. The float weights lie in one file that
all processes map, so that they are in memory once; `own GiB` is what a contestant was seen to
allocate at most, from its start to its last call, and `peak GiB` its resident memory with the file.
What is prepared once (weights, states with ranges of noise, what other tools write) is kept in
`--folder`, else thrown away. Contestants are in `benchmarks/cpu/contestants.py`.

glibc gives large blocks back to the system after every call and faults them in again, which costs
every contestant up to a fifth of its time. The script therefore restarts itself with
`MALLOC_MMAP_THRESHOLD_` and `MALLOC_TRIM_THRESHOLD_` raised, for all contestants; `--plain-malloc`
leaves them alone.

`--cores` names what contestants run on once they are made, when there are more cores to prepare and
to make them with (`--makers`, so many at the same time).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cpu.prepared import Setup
    from cpu.rounds import Row
    from cpu.workers import Worker

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
BASES = (
    "FP32 eager",
    "FP32 eager, channels last",
    "FP32 compiled",
    "OpenVINO FP32",
    "OpenVINO BF16",
    "OpenVINO+NNCF int8",
)
"""What ratios are given to, where it was measured."""


def main(arguments: list[str]) -> int:
    """Measures and prints a Markdown table; returns the exit code."""
    args = parser().parse_args(arguments)
    wanted = {"OMP_NUM_THREADS": str(args.threads), **({} if args.plain_malloc else MALLOC)}
    here, found = str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")
    if here not in found.split(os.pathsep):  # where its processes find their modules
        wanted["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [found])])
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})

    from cpu.machine import described
    from cpu.networks import NETWORKS
    from cpu.prepared import Setup, prepare
    from cpu.rounds import level, table
    from cpu.workers import in_a_process

    network = NETWORKS[args.network]
    with tempfile.TemporaryDirectory() as temporary:
        setup = Setup(
            network=args.network,
            size=args.size,
            batch=args.batch or network.images,
            threads=args.threads,
            folder=Path(args.folder or temporary),
            cores=tuple(args.cores),
        )
        in_a_process(prepare, setup)
        rounds = args.rounds or network.rounds
        at_once = network.at_once if args.at_once is None else args.at_once
        rows, notes = measured(setup, _chosen(args, network), rounds, at_once, args.makers)
    print(table(rows, BASES))
    print()
    print(
        f"{args.network}{f' at {args.size}' if args.size else ''}, batch {setup.batch}, "
        f"{args.threads} threads, {rounds} interleaved rounds, medians with {level(rounds)}, "
        f"{described(setup.cores)}, "
        f"{'default malloc' if args.plain_malloc else 'malloc thresholds raised'}."
    )
    for note in notes:
        print(f"- {note}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--network", default="cifar10", choices=("cifar10", "sd15", "sdxl"))
    add("--size", type=int, default=0, help="pixels of sd15 and sdxl along a side; else their own")
    add("--batch", type=int, help="8 of cifar10, else 1")
    add("--threads", type=int, default=2)
    add("--rounds", type=int, help="30 of cifar10, 10 of sd15, 5 of sdxl")
    add("--only", nargs="+", default=[], metavar="TEXT", help="contestants whose names have a text")
    add("--skip", nargs="+", default=[], metavar="TEXT", help="leave contestants out by their name")
    add("--at-once", type=int, help="in memory beside FP32 eager; 0 for all, as of cifar10")
    add("--folder", help="keeps what is prepared for a network at a size, for another run of it")
    add("--cores", type=int, nargs="+", default=[], help="where contestants run once they are made")
    add("--makers", type=int, default=1, help="contestants that are made at the same time")
    add("--plain-malloc", action="store_true", help="leave glibc's defaults")
    return made


def _chosen(args: argparse.Namespace, network) -> list[str]:
    from cpu.contestants import BASELINE, CONTESTANTS

    def wanted(name: str) -> bool:
        if any(text in name for text in args.skip):
            return False
        if args.only:
            return any(text in name for text in args.only)
        return not name.startswith(network.left_out)

    return [name for name in CONTESTANTS if name != BASELINE and wanted(name)]


def measured(
    setup: Setup, names: list[str], rounds: int, at_once: int, makers: int
) -> tuple[list[Row], list[str]]:
    """A row for FP32 eager and for each contestant that could be made, and remarks.

    Args:
        at_once: see `rounds.grouped`. makers: how many contestants are made at the same time.
    """
    from cpu.contestants import BASELINE
    from cpu.rounds import grouped, interleaved
    from cpu.workers import Worker

    notes: list[str] = []
    rows: list[Row] = []
    pooled: list[float] = []
    baseline = Worker(setup, BASELINE)
    for group in grouped(names, at_once):
        workers = {BASELINE: baseline, **_made(setup, group, makers, notes)}
        if len(workers) == 1:
            continue
        times = interleaved({name: worker.call for name, worker in workers.items()}, rounds)
        pooled += times[BASELINE]
        for name, worker in list(workers.items())[1:]:
            worker.close()
            rows.append(_row(name, times, baseline, worker))
            _say(f"{name}: {statistics.median(times[name]):.0f} ms")
    times = {BASELINE: pooled or [baseline.call() for _ in range(rounds)]}
    rows.insert(0, _row(BASELINE, times, baseline, baseline))
    baseline.close()
    return rows, notes


def _row(name: str, times: dict[str, list[float]], baseline: Worker, worker: Worker) -> Row:
    from cpu.rounds import Row, sqnr_db

    return Row(
        name=name,
        times=times,
        sqnr_db=sqnr_db(baseline.made.output, worker.made.output),
        own_bytes=worker.own_bytes,
        peak_bytes=worker.peak_bytes,
    )


def _made(setup: Setup, names: list[str], makers: int, notes: list[str]) -> dict[str, Worker]:
    """Those of the contestants that can be made; of the others the reason goes to the notes."""
    from cpu.workers import Failed, Worker

    def make(name: str) -> Worker | Failed:
        try:
            worker = Worker(setup, name)
        except Failed as reason:
            _say(f"{name} left out: {reason}")
            return reason
        _say(f"{name} is ready after {worker.made.seconds:.0f} s")
        return worker

    with ThreadPoolExecutor(makers) as pool:
        found = dict(zip(names, pool.map(make, names), strict=True))
    for name, worker in found.items():
        if isinstance(worker, Failed):
            notes.append(f"{name} left out: {worker}.")
        else:
            remark = f" {worker.made.remark}." if worker.made.remark else ""
            notes.append(f"{name}: ready after {worker.made.seconds:.0f} s.{remark}")
    return {name: worker for name, worker in found.items() if not isinstance(worker, Failed)}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
