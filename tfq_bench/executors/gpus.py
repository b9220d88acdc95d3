"""Which GPUs of this host a run is placed on, and what shows a process one of them alone.

GPUs are numbered as CUDA and torch number them: from 0, among those that `CUDA_VISIBLE_DEVICES`
shows. A child process asks for them, because CUDA reads that variable once in the life of a
process, and the run's own is to see the chosen ones only: what it plans and records is then theirs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tfq_bench.errors import TfqError, UsageError
from tfq_bench.foreign.text import printable
from tfq_bench.provenance.gpus import gpu_speed

__all__ = ["Gpu", "chosen_gpus", "parsed_devices", "showing_only", "visible_gpus"]

VARIABLE = "CUDA_VISIBLE_DEVICES"
TIMEOUT_S = 120.0
"""A cold disk takes its time to load torch; a driver that hangs is not waited for."""

_QUESTION = """
import json
from tfq_bench.provenance.gpus import visible_gpus
print(json.dumps(visible_gpus()))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU.

    Args:
        number: from 0, as CUDA counts what is visible.
        shown_by: the value of `CUDA_VISIBLE_DEVICES` that shows it alone: a number, or an id of a
            GPU or of a MIG instance.
        speed: what decides its speed, see `gpu_speed`.
    """

    number: int
    shown_by: str
    speed: Mapping[str, Any]

    @property
    def model(self) -> str:
        """Name and memory, for a person."""
        return f"{printable(self.speed['name'], 100)}, {self.speed['memory_gib']} GiB"


def parsed_devices(text: str) -> tuple[int, ...]:
    """The numbers that `--devices` names, in its order.

    Raises:
        UsageError: it is no list of numbers, or names one twice.
    """
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if not (word.isascii() and word.isdecimal() and len(word) < 5):
            raise UsageError(
                "--devices: expected numbers of GPUs with commas between them, such as 0,1, found "
                f"'{printable(text, 80)}'. GPUs are counted from 0 among those that {VARIABLE} "
                "shows; ids of GPUs go into that variable."
            )
    numbers = tuple(map(int, words))
    for number in numbers:
        if numbers.count(number) > 1:
            raise UsageError(
                f"--devices: expected each GPU once, found {number} twice. More --slots than GPUs "
                "let tasks share them."
            )
    return numbers


def visible_gpus() -> tuple[Gpu, ...]:
    """All GPUs that CUDA shows a process of this host, in the order of their numbers.

    Raises:
        TfqError: torch cannot be asked for them.
    """
    given = os.environ.get(VARIABLE)
    if given is None:
        found = _asked(None)
        return tuple(map(_gpu, range(len(found)), map(str, range(len(found))), found))
    entries = [entry.strip() for entry in given.split(",")]
    # Of several MIG instances a process sees the first only: each one is asked for alone.
    several = len(entries) > 1 and any(entry.startswith("MIG-") for entry in entries)
    found = []
    with ThreadPoolExecutor() as pool:
        for shown in pool.map(_asked, entries if several else [given]):
            if not shown:
                break  # as CUDA ignores what stands behind an entry that does not exist
            found += shown
    return tuple(map(_gpu, range(len(found)), entries, found))


def _gpu(number: int, shown_by: str, facts: Mapping[str, Any]) -> Gpu:
    return Gpu(number=number, shown_by=shown_by, speed=gpu_speed(facts))


def _asked(shown: str | None) -> list[dict[str, Any]]:
    """What torch tells of its GPUs in a process with this value of `CUDA_VISIBLE_DEVICES`."""
    try:
        answer = subprocess.run(
            [sys.executable, "-c", _QUESTION],
            env=os.environ if shown is None else {**os.environ, VARIABLE: shown},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        found: list[dict[str, Any]] = json.loads(answer.stdout.rstrip().rpartition(b"\n")[2])
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or b""
        last = printable(said[-2000:].decode("utf-8", "replace").strip().rpartition("\n")[2], 300)
        raise TfqError(
            f"cannot find out which GPUs there are: a process that asks torch for them failed "
            f"({last or printable(error, 300)}). Without --devices and --slots none is asked for."
        ) from error
    return found


def chosen_gpus(numbers: Iterable[int], slots: int) -> tuple[Gpu, ...]:
    """The GPUs that a run with these slots is placed on.

    Args:
        numbers: that were asked for; without any, the first ones, at most as many as slots.

    Returns:
        In the order of `numbers`; none where nothing was asked for and there is none.

    Raises:
        UsageError: one does not exist, or they are not all of one model.
    """
    there, wanted = visible_gpus(), tuple(numbers)
    for number in wanted:
        if number >= len(there):
            raise UsageError(f"--devices: there is no GPU {number}; {_listed(there)}")
    chosen = tuple(there[number] for number in wanted) or there[:slots]
    kinds: dict[str, list[Gpu]] = {}
    for gpu in chosen:
        kinds.setdefault(repr(gpu.speed), []).append(gpu)
    if len(kinds) > 1:
        alike = [f"{_numbers(gpus)} ({gpus[0].model})" for gpus in kinds.values()]
        most = max(kinds.values(), key=len)
        raise UsageError(
            f"expected GPUs of one model, found {' and '.join(alike)}. Records name one GPU, and "
            "times of unlike ones do not compare. Choose equal ones, such as --devices "
            f"{_numbers(most)}, and give each model a run of its own."
        )
    return chosen


def _numbers(gpus: list[Gpu]) -> str:
    return ",".join(str(gpu.number) for gpu in gpus)


def _listed(gpus: tuple[Gpu, ...]) -> str:
    shown = os.environ.get(VARIABLE)
    among = "" if shown is None else f" among what {VARIABLE}={printable(shown, 200)} shows"
    if not gpus:
        return f"torch finds none{among}."
    told = "; ".join(f"{gpu.number} ({gpu.model})" for gpu in gpus)
    return f"torch finds {told}{among}."


@contextmanager
def showing_only(gpus: tuple[Gpu, ...]) -> Iterator[None]:
    """This process and its children see these GPUs inside; all that it saw, when there are none."""
    before = os.environ.get(VARIABLE)
    if gpus:
        os.environ[VARIABLE] = ",".join(gpu.shown_by for gpu in gpus)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before
