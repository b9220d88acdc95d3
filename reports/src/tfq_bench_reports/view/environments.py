"""Where a run was measured: each environment as a sentence and as facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfq_bench.api import Record
from tfq_bench.store import RunFolder
from tfq_bench_reports.view.redact import redact
from tfq_bench_reports.view.types import CellView, EnvironmentView

__all__ = ["environments_of", "hardware_of"]


def environments_of(run: RunFolder, records: Sequence[Record]) -> tuple[EnvironmentView, ...]:
    """The environments that the records name, each as a sentence and as facts."""
    used = {record.environment for record in records}
    return tuple(
        EnvironmentView(id=identifier, sentence=_sentence(content), facts=tuple(_flatten(content)))
        for identifier, content in sorted(run.environments().items())
        if identifier in used
    )


def _sentence(environment: Mapping[str, Any]) -> str:
    hardware = environment.get("hardware", {})
    gpus = [str(gpu.get("name")) for gpu in hardware.get("gpus") or []]
    parts = [
        *gpus,
        str(hardware.get("cpu", "unknown processor")),
        f"{hardware.get('usable_cores', '?')} usable cores",
    ]
    threads = environment.get("threads", {}).get("torch")
    if threads is not None:
        parts.append(f"{threads} torch threads")
    torch = environment.get("versions", {}).get("torch")
    if torch:
        parts.append(f"torch {torch}")
    return ", ".join(parts)


def _flatten(content: Any, name: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(content, Mapping) and content:
        for key, value in sorted(content.items()):
            yield from _flatten(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list) and any(isinstance(item, Mapping | list) for item in content):
        for number, item in enumerate(content):
            yield from _flatten(item, f"{name}[{number}]")
    elif isinstance(content, list):
        yield name, ", ".join(map(str, content)) or "none"
    else:
        yield name, redact(str(content))


def hardware_of(
    cells: Iterable[CellView], environments: Iterable[EnvironmentView], plan: Mapping[str, Any]
) -> str:
    """Where the speeds come from, and under which conditions."""
    timed = {cell.environment for cell in cells if cell.metrics}
    sentences = [env.sentence for env in environments if env.id in timed]
    timing = plan.get("timing") or {}
    settings = ", ".join(f"{name} {value}" for name, value in sorted(timing.items()))
    where = f"Measured on {'; '.join(dict.fromkeys(sentences))}" if sentences else ""
    return ". ".join(part for part in (where, f"Timing: {settings}" if settings else "") if part)
