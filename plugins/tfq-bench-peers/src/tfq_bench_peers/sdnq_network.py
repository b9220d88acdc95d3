"""The other process and its network, seen from here: calls go there, tensors come back."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfq_bench.api import LoweringError, printable
from tfq_bench_peers.network_call import EngineNetwork
from tfq_bench_peers.sdnq_process.portable import pack
from tfq_bench_peers.sdnq_process.wire import receive, send

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench_peers.network_call import NetworkCall

__all__ = ["ProcessNetwork", "SdnqProcess", "interpreter"]

VARIABLE = "TFQ_BENCH_SDNQ_PYTHON"
PROGRAM = Path(__file__).parent / "sdnq_process" / "program.py"
PATIENCE_S = 5.0
"""How long a process whose input has ended may take to end itself."""


def interpreter() -> str:
    """The Python that has SDNQ: `$TFQ_BENCH_SDNQ_PYTHON`, or the one that runs here."""
    return os.environ.get(VARIABLE) or sys.executable


class SdnqProcess:
    """A process that runs `program.py`; it ends with this object, or with this process."""

    def __init__(self) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `_end`)
        self._process = subprocess.Popen(
            [interpreter(), str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            # Compiling takes minutes in each process; without it, as other tools here.
            env={**os.environ, "SDNQ_USE_TORCH_COMPILE": "0"},
            start_new_session=True,  # Ctrl-C reaches us, and the end of its input reaches it
        )
        self.end = weakref.finalize(self, _end, self._process, self._said)

    def ask(
        self, do: str, tensors: Iterable[Tensor] = (), **more: Any
    ) -> tuple[dict[str, Any], list[Tensor]]:
        """What it answers.

        Raises:
            LoweringError: it cannot, or is no more; with what it said.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            send(stdin, {"do": do, **more}, tensors)
            answer, found = receive(stdout)
        except (OSError, EOFError, ValueError) as error:
            raise LoweringError(self._ended(do)) from error
        if "error" in answer:
            raise LoweringError(
                f"the process of SDNQ ({interpreter()}) cannot {do}: "
                f"{printable(answer['error'], 300)}{_hint(answer['error'])}"
            )
        return answer, found

    def _ended(self, do: str) -> str:
        self._process.kill()  # what it wrote was no answer, if it is still there
        code = self._process.wait()
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        last = f": {printable(lines[-1], 300)}" if lines else ", and said nothing"
        return (
            f"the process of SDNQ ({interpreter()}) ended {how} when it was to {do}{last}. Other "
            "cells are not affected; the same command tries it again."
        )


class ProcessNetwork(EngineNetwork):
    """Called like the network that was sent there.

    Args:
        details: gets `transport`: medians over the calls so far, in milliseconds, of a whole call
            and of its part outside the other process's network.
        call, counts, like: see `EngineNetwork`.
    """

    def __init__(
        self,
        process: SdnqProcess,
        call: NetworkCall,
        *,
        counts: dict[str, int],
        details: dict[str, Any],
        like: Tensor,
    ) -> None:
        super().__init__(call, counts=counts, like=like)
        self.seen: dict[str, Any] | None = None
        self._process, self._details = process, details
        self._times: list[tuple[float, float]] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the quantized network returns for these arguments.

        Raises:
            LoweringError: the process is no more, or says why it cannot.
        """
        if self.seen is None:
            self.seen, _ = self._process.ask("look", pack((args, kwargs)))
        before = time.perf_counter()
        answer, found = self._process.ask("call", pack((args, kwargs)))
        out = self.answer([tensor.to(self.like.device) for tensor in found])
        whole = (time.perf_counter() - before) * 1e3
        self._times.append((whole, whole - float(answer["ms"])))
        self._details["transport"] = {
            "call_ms": round(statistics.median(one for one, _ in self._times), 3),
            "outside_ms": round(statistics.median(other for _, other in self._times), 3),
        }
        return out


def _hint(error: str) -> str:
    if error.startswith(("ModuleNotFoundError", "AttributeError", "ImportError")):
        return f". What the model's network is made of must be installed there too (${VARIABLE})."
    return "" if error.endswith(".") else "."


def _end(process: subprocess.Popen[bytes], said: Any) -> None:
    for stream in (process.stdin, process.stdout):
        try:
            if stream is not None:
                stream.close()
        except OSError:
            pass
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    said.close()
