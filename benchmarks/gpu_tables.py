"""Every table of `plugins/tfq-bench-cuda` on all GPUs of this host, one job a GPU at a time.

    python benchmarks/gpu_tables.py tables
    python benchmarks/gpu_tables.py tables --minutes 9     # again, and it goes on
    python benchmarks/gpu_tables.py tables --only tune tests

A job is a command below; what it prints goes to `FOLDER/NAME.md`, what it says to
`FOLDER/NAME.log`. One that ended well is not run again. Each GPU has its share of the host's cores.
`tune` jobs come first, and all others run with the tiles that they found.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

TESTS = "python -m pytest -q -m gpu -n 8 --durations=10"
SPEED = "python benchmarks/gpu_speed.py"
FUSED = "--levels blocks+graph"
TUNED = {
    "tune-1": "--linear 2048x5120x1280:geglu+codes --linear 2048x1280x1280:residual "
    "--conv 2x32x32x1280x1280:residual --conv 2x128x128x320x320:shift",
    "tune-2": "--linear 2048x3840x1280 --linear 8192x2560x640:geglu+codes "
    "--conv 2x64x64x640x640:residual --conv 2x32x32x2560x1280:shift",
    "tune-3": "--linear 2048x1280x5120:residual --linear 8192x640x2560:residual "
    "--conv 2x128x128x320x320:residual --conv 2x64x64x1280x640:shift",
    "tune-4": "--linear 8192x1920x640 --linear 8192x640x640:residual "
    "--conv 2x128x128x640x320:shift --conv 2x64x64x640x640:shift",
}
"""The products of SDXL, two rows, that take longest, each list about as long to search."""

JOBS = {
    "tests-gpu": f"{TESTS} plugins/tfq-bench-cuda/tests/test_gpu.py",
    "tests-rest": f"{TESTS} plugins/tfq-bench-cuda/tests tests/gpu "
    "--ignore=plugins/tfq-bench-cuda/tests/test_gpu.py",
    "sdxl-2": f"{SPEED} sdxl --batch 2 {FUSED} --compile --profile",
    "sdxl-8": f"{SPEED} sdxl --batch 8 {FUSED} --compile",
    "sdxl-1": f"{SPEED} sdxl --batch 1 {FUSED} --compile",
    "sdxl-512": f"{SPEED} sdxl-512 {FUSED} --compile",
    "sd15": f"{SPEED} sd15 {FUSED} --compile --torchao",
    "dit": f"{SPEED} dit {FUSED} --compile --torchao --without modulations",
    "pixart-sigma": f"{SPEED} pixart-sigma {FUSED} --compile --profile --without modulations",
    "cifar10": f"{SPEED} cifar10 {FUSED} --compile --torchao",
    "simulation": f"{SPEED} cifar10 --batch 500 {FUSED} --simulate",
    "start": f"{SPEED} sdxl --batch 2 {FUSED} --start",
    "shapes": "python benchmarks/gpu_shapes.py sdxl --batch 2",
    "attention": "python benchmarks/gpu_attention.py",
    "suite": "tfq-bench run sdxl-speed --run {folder}/runs/sdxl-speed",
}
"""About as many as four GPUs do in half an hour; `{folder}` is where tables go."""

LEAST_S = 30
"""Seconds without which no job is begun."""


def main(arguments: list[str]) -> int:
    """Runs the jobs; 1 when one failed or is left."""
    options = parser()
    args = options.parse_args(arguments)
    if not torch.cuda.device_count():
        options.error("expected a GPU that torch sees, found none")
    args.folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * args.minutes
    host = Host(args.folder, end)
    for jobs in ({name: f"tfq-bench-cuda tune {words}" for name, words in TUNED.items()}, JOBS):
        host.run(
            {
                name: command
                for name, command in jobs.items()
                if not args.only or any(name.startswith(word) for word in args.only)
            }
        )
        host.merge_tiles()
    print(f"{len(host.failed)} failed or left: {', '.join(host.failed)}" if host.failed else "done")
    return 1 if host.failed else 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("folder", type=Path, help="where tables and logs go")
    made.add_argument("--minutes", type=float, default=120, help="what runs then is ended")
    made.add_argument("--only", nargs="+", default=[], metavar="NAME", help="jobs that begin so")
    return made


class Host:
    """The GPUs of this host.

    Args:
        folder: of tables and logs. end: of `time.monotonic`, when jobs are ended.

    Attributes:
        failed: names of jobs that failed or were not begun.
    """

    def __init__(self, folder: Path, end: float) -> None:
        self._folder, self._end = folder, end
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        count = torch.cuda.device_count()
        self._gpus = visible.split(",")[:count] if visible else [str(i) for i in range(count)]
        self._cores = sorted(os.sched_getaffinity(0))
        self.failed: list[str] = []

    def run(self, jobs: dict[str, str]) -> None:
        """Runs those that have not ended well before, on whichever GPU is free."""
        waiting: queue.Queue[str] = queue.Queue()
        for name in jobs:
            if not (self._folder / f"{name}.done").exists():
                waiting.put(name)

        def work(gpu: str) -> None:
            while True:
                try:
                    name = waiting.get_nowait()
                except queue.Empty:
                    return
                if not self._one(name, jobs[name], gpu):
                    self.failed.append(name)

        threads = [threading.Thread(target=work, args=(gpu,)) for gpu in self._gpus]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def merge_tiles(self) -> None:
        """Makes one file of tiles of those that each search kept."""
        found: dict[str, object] = {}
        for file in sorted(self._folder.glob("tune-*.tiles.json")):
            found |= json.loads(file.read_text())
        (self._folder / "tiles.json").write_text(json.dumps(found, indent=1) + "\n")

    def _one(self, name: str, command: str, gpu: str) -> bool:
        left = self._end - time.monotonic()
        if left < LEAST_S:
            return False
        own = f"{name}.tiles.json" if name in TUNED else "tiles.json"
        environment = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": gpu,
            "TFQ_BENCH_CUDA_TILES": str((self._folder / own).resolve()),
        }
        cores = ",".join(map(str, self._cores[self._gpus.index(gpu) :: len(self._gpus)]))
        command = command.format(folder=self._folder.resolve())
        words = [sys.executable if word == "python" else word for word in command.split()]
        begin = time.monotonic()
        with (
            (self._folder / f"{name}.md").open("w") as out,
            (self._folder / f"{name}.log").open("w") as log,
        ):
            process = subprocess.Popen(
                ["taskset", "-c", cores, *words],
                stdout=out,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
            try:
                code = process.wait(left)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                code = process.wait()
        said = "ended" if code == 0 else f"exit code {code}"
        print(f"{name}, GPU {gpu}: {said} after {time.monotonic() - begin:.0f} s", flush=True)
        if code == 0:
            (self._folder / f"{name}.done").touch()
        return code == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
