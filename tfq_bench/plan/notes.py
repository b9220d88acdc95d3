"""What a suite asks for in vain, in words: nothing is ignored without being said."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tfq_bench.plan.suite_format import CALIBRATION, TIMING
from tfq_bench.provenance.gpus import gpu_name
from tfq_bench.types import Option, OptionValue

if TYPE_CHECKING:
    from tfq_bench.plan.plan import PlannedCell
    from tfq_bench.plan.suite import Exclude, SuiteSpec

__all__ = ["plan_notes"]


def plan_notes(
    spec: SuiteSpec, cells: Iterable[PlannedCell], *, idle: Iterable[Exclude], timed: bool
) -> tuple[str, ...]:
    """Sentences about what has no effect, or none on this machine.

    Args:
        cells: of the plan, skipped ones too.
        idle: exclusions that matched no cell.
        timed: whether a metric reads timings.
    """
    return (*_reference(cells), *_unused(spec, cells, timed), *_machine(spec), *map(_idle, idle))


def _reference(cells: Iterable[PlannedCell]) -> list[str]:
    models = dict.fromkeys(planned.cell.model.name for planned in cells)
    full = {p.cell.model.name for p in cells if p.execution == "full-precision"}
    return [
        f"model '{model}' has no full-precision cell, so that nothing is compared with it and "
        "metrics such as 'paired' have no numbers. Add [[quantizer]] with name = \"fp\"."
        for model in models
        if model not in full
    ]


def _unused(spec: SuiteSpec, cells: Iterable[PlannedCell], timed: bool) -> list[str]:
    found = []
    if not timed and _written(spec.timing, TIMING):
        found.append("[timing] has no effect: no metric of the suite reads timings.")
    if all(planned.execution == "full-precision" for planned in cells):
        unused = [
            *(["[calibration]"] if _written(spec.calibration, CALIBRATION) else []),
            *(["[[backend]]"] if spec.backends else []),
            *(["all but the first of 'seeds'"] if len(spec.seeds) > 1 else []),
        ]
        if unused:
            found.append(f"{' and '.join(unused)} without effect: nothing is quantized.")
    most = min(int(spec.sampling["shard"]), int(spec.sampling["images"]))
    if int(spec.sampling["batch"]) > most:
        found.append(f"[sampling] batch {spec.sampling['batch']} is never full: tasks have {most}.")
    return found


def _machine(spec: SuiteSpec) -> list[str]:
    found = []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if cores is not None and spec.threads > cores:
        found.append(
            f"[suite] threads {spec.threads} are more than the {cores} cores that may be used here;"
            " they take turns."
        )
    if spec.device == "cuda" and not gpu_name():
        found.append("[suite] device 'cuda': torch finds no GPU here, so 'run' will refuse it.")
    return found


def _idle(exclude: Exclude) -> str:
    patterns = ", ".join(f"{key} = {value}" for key, value in exclude.patterns.items())
    return f"[[exclude]] {patterns} matches no cell."


def _written(values: Mapping[str, OptionValue], options: Iterable[Option]) -> bool:
    """Whether a table says anything but its defaults."""
    return any(values[option.name] != option.default for option in options)
