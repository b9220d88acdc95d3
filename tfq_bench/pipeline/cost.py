"""What a piece of work costs: seconds, peak memory, calls of the network.

A quantizer may stop and go on later from its checkpoint. What the stopped attempts cost lies in
that folder too, so that the sum is what the method really took, work done twice included.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from types import TracebackType

    from torch import nn

    from tfq_bench.types.networks import LoadedModel
    from tfq_bench.types.tasks import Progress

__all__ = ["LEDGER", "Meter"]

LEDGER = "cost.json"
"""File in a checkpoint folder with the cost of the attempts so far."""
_SAMPLING = 0.02
_SAVING = 1.0


class Meter:
    """Measures what runs inside `with`.

    Peak memory is what the work needs on top of what is there when it begins (the loaded network,
    calibration data): on a GPU of what torch allocates on it, on a CPU of the process's resident
    memory, looked at every 20 ms. Memory that the process had freed and kept is not seen, so the
    latter is a lower bound in a process that did other work before.

    A network call is a forward pass of the whole network or of a copy made inside, of whatever
    batch; steps that train single blocks are none.

    Args:
        ledger: checkpoint folder of the work; None when it has none.
    """

    def __init__(self, loaded: LoadedModel, *, ledger: Path | None = None) -> None:
        self._network = loaded.network
        self._cuda = loaded.device.startswith("cuda")
        self._ledger = ledger
        self._before = _read(ledger)
        self._calls = [0]

    def __enter__(self) -> Meter:
        self._handle = self._network.register_forward_pre_hook(_counter(self._calls))
        self._memory = _DeviceMemory() if self._cuda else _ProcessMemory()
        self._saved = self._start = time.perf_counter()
        self._end: float | None = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._memory.stop()
        self._end = time.perf_counter()
        self._handle.remove()

    @property
    def facts(self) -> dict[str, Any]:
        """`{"seconds", "peak_memory_bytes", "network_calls"}`, so far or, after `with`, in all."""
        end = time.perf_counter() if self._end is None else self._end
        return {
            "seconds": self._before["seconds"] + end - self._start,
            "peak_memory_bytes": max(self._before["peak_memory_bytes"], self._memory.peak),
            "network_calls": self._before["network_calls"] + self._calls[0],
        }

    def kept(self, progress: Progress) -> Progress:
        """`progress` that also writes the ledger now and then, once there is a checkpoint."""

        def report(share: float, text: str) -> None:
            progress(share, text)
            now = time.perf_counter()
            if self._ledger is not None and now - self._saved > _SAVING and self._ledger.is_dir():
                self._saved = now
                temporary = self._ledger / f"{LEDGER}.part"
                temporary.write_text(json.dumps(self.facts))
                temporary.replace(self._ledger / LEDGER)

        return report


def _counter(calls: list[int]) -> Any:
    # A function, not a bound method: copies of the network then count into the same list.
    def count(module: nn.Module, args: Any) -> None:  # noqa: ARG001
        calls[0] += 1

    return count


def _read(ledger: Path | None) -> dict[str, Any]:
    nothing = {"seconds": 0.0, "peak_memory_bytes": 0, "network_calls": 0}
    if ledger is None:
        return nothing
    try:
        found = json.loads((ledger / LEDGER).read_text())
        return {name: type(zero)(found[name]) for name, zero in nothing.items()}
    except (OSError, ValueError, TypeError, KeyError):
        return nothing  # no attempt before this one


class _DeviceMemory:
    """Torch's own count of what it allocates on the GPU."""

    def __init__(self) -> None:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self._start = torch.cuda.memory_allocated()

    @property
    def peak(self) -> int:
        """Bytes on top of the start."""
        return int(torch.cuda.max_memory_allocated()) - self._start

    def stop(self) -> None:
        """Waits for what is still running."""
        torch.cuda.synchronize()


class _ProcessMemory:
    """Resident memory, sampled by a thread; a new high-water mark of the process is exact."""

    def __init__(self) -> None:
        self._start, self._mark = _resident()
        self._highest = self._start
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)
        self._thread.start()

    @property
    def peak(self) -> int:
        """Bytes on top of the start."""
        self._look()
        return self._highest - self._start

    def stop(self) -> None:
        """Looks for the last time."""
        self._done.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLING):
            self._look()

    def _look(self) -> None:
        now, mark = _resident()
        self._highest = max(self._highest, now, mark if mark > self._mark else 0)


def _resident() -> tuple[int, int]:
    """(bytes now, most bytes ever) of this process; the latter twice where only that is known."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        kilobytes = {line.partition(":")[0]: line.split()[1] for line in lines if "kB" in line}
        return int(kilobytes["VmRSS"]) * 1024, int(kilobytes["VmHWM"]) * 1024
    except (OSError, KeyError):
        import resource  # Linux is read above; this module is missing on some other systems

        mark = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        mark = mark if sys.platform == "darwin" else mark * 1024
        return mark, mark
