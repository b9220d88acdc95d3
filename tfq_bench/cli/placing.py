"""What `--executor`, `--slots` and `--devices` say together: who runs tasks, and on which GPUs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfq_bench.errors import UsageError
from tfq_bench.executors.gpus import Gpu, chosen_gpus, parsed_devices
from tfq_bench.host.table import PluginTable
from tfq_bench.providers import ExecutorProvider
from tfq_bench.types import OptionValue, parse_options

if TYPE_CHECKING:
    from tfq_bench.plan.suite import SuiteSpec
    from tfq_bench.protocols import Executor

__all__ = ["Placing", "add_placing", "placing"]


def add_placing(parser: argparse.ArgumentParser) -> None:
    """Adds `--executor`, `--slots` and `--devices`."""
    parser.add_argument(
        "--executor",
        default="inline",
        metavar="NAME",
        help="inline: in this process (default); process: each cell in processes of its own",
    )
    parser.add_argument(
        "--slots",
        type=int,
        metavar="N",
        help="tasks at the same time, with --executor process (1, or one for each of --devices); "
        "a suite on 'cuda' spreads them over the first N GPUs",
    )
    parser.add_argument(
        "--devices",
        metavar="N,...",
        help="GPUs that --executor process spreads tasks over, such as 0,1, counted from 0 among "
        "those that CUDA_VISIBLE_DEVICES shows; a task sees one, a timing has it to itself",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """Who runs the tasks.

    Args:
        options: of the executor, complete and checked.
        gpus: that tasks are placed on; none where all see what the executor sees.
    """

    provider: ExecutorProvider
    options: Mapping[str, OptionValue]
    gpus: tuple[Gpu, ...]

    def executor(self, table: PluginTable, run: Path) -> Executor:
        """The executor of the run folder `run`."""
        more: dict[str, Any] = {}
        if self.provider.gpus:
            more["devices"] = tuple(gpu.shown_by for gpu in self.gpus)
        made: Executor = table.create(self.provider, run=run, **self.options, **more)
        return made


def placing(args: argparse.Namespace, spec: SuiteSpec, table: PluginTable) -> Placing:
    """What the arguments say, held against the executor, the suite and the GPUs that there are.

    Raises:
        UsageError: they contradict each other or the suite, or name what this host has not.
        SuiteError: there is no such executor, or a value is out of range.
        TfqError: torch cannot be asked for GPUs.
    """
    provider: ExecutorProvider = table.get("executor", args.executor)
    numbers = () if args.devices is None else _numbers(args, provider, spec)
    options = _options(provider, args.slots, len(numbers))
    slots = options.get("slots") if provider.gpus and spec.device == "cuda" else None
    spread = isinstance(slots, int) and slots > 1
    gpus: tuple[Gpu, ...] = ()
    if numbers or spread:
        gpus = chosen_gpus(numbers, slots if isinstance(slots, int) else len(numbers))
    return Placing(provider=provider, options=options, gpus=gpus)


def _numbers(
    args: argparse.Namespace, provider: ExecutorProvider, spec: SuiteSpec
) -> tuple[int, ...]:
    """The numbers of `--devices`, where they can mean something."""
    if not provider.gpus:
        raise UsageError(
            f"--devices: the executor '{provider.name}' spreads nothing over GPUs; --executor "
            "process does. Others compute on the first GPU that CUDA_VISIBLE_DEVICES shows."
        )
    if spec.device != "cuda":
        raise UsageError(
            f"--devices: suite '{spec.name}' runs on the device '{spec.device}'. Write "
            "'device = \"cuda\"' under [suite], or leave --devices out."
        )
    numbers = parsed_devices(args.devices)
    if args.slots is not None and args.slots < len(numbers):
        raise UsageError(
            f"--devices: expected a slot for each GPU, found {len(numbers)} GPUs and --slots "
            f"{args.slots}. Leave --slots out for one task a GPU, or name fewer GPUs."
        )
    return numbers


def _options(provider: ExecutorProvider, slots: int | None, devices: int) -> dict[str, OptionValue]:
    given: dict[str, object] = {}
    if any(option.name == "slots" for option in provider.options):
        slots = slots if slots is not None else devices or None
        given = {} if slots is None else {"slots": slots}
    elif slots is not None:
        raise UsageError(
            f"--slots: the executor '{provider.name}' has no slots; --executor process has."
        )
    return parse_options(provider.options, given, f"executor '{provider.name}'")
