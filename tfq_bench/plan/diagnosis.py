"""What this machine can run with what is installed, and what is missing: the facts of `doctor`.

Nothing here raises for what is broken: a fault is a finding, in words.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfq_bench.errors import TfqError
from tfq_bench.foreign import interrupts
from tfq_bench.foreign.text import printable
from tfq_bench.host.inspection import BUILTIN, HOST, cause
from tfq_bench.plan.inventory import known_assets
from tfq_bench.plan.planner import make_plan
from tfq_bench.plan.refusals import refusal
from tfq_bench.plan.suite import load_suite
from tfq_bench.protocols import SaysExactness
from tfq_bench.provenance.environment import arithmetic_facts, speed_facts
from tfq_bench.provenance.gpus import gpu_driver, visible_gpus
from tfq_bench.provenance.installed_torch import InstalledTorch, installed_torch
from tfq_bench.providers import BackendProvider, QuantizerProvider
from tfq_bench.types import Scheme, parse_options

if TYPE_CHECKING:
    from tfq_bench.host.inspection import PluginInfo
    from tfq_bench.host.table import PluginTable

__all__ = ["FIRST_SUITE", "Diagnosis", "Lacking", "Runner", "diagnose"]

FIRST_SUITE = "quickstart"

NEEDED_BYTES = 200_000_000
"""Free space below which no quickstart is begun; its quantized states have 20 MB together."""


SETTING = "setting "
"""How names of environment variables begin among the facts of a machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """A backend, or a tool that executes by itself, on one device.

    Args:
        kind: of its provider, `backend` or `quantizer`.
        reason: why it cannot run here, as sentences; empty when it can.
        exactness: which kernels are exact here, as far as it says so, else empty.
    """

    kind: str
    name: str
    device: str
    reason: str
    exactness: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """A file that is not on this machine, and what needs it. `size` in bytes, None if unknown."""

    name: str
    size: int | None
    users: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All findings.

    Args:
        plugins: all but the host's own.
        machine: processor, cores, instruction sets and memory, see `speed_facts`.
        settings: environment variables that choose other kernels or numbers of threads.
        gpus: see `visible_gpus`.
        driver: of NVIDIA's kernel module, None without one.
        lacking: files that installed plugins know of and that are not here.
        assets: how many they know of.
        folder: where runs go.
        free: bytes there; 0 where nothing can be written.
        cells: of the quickstart, by execution (`full-precision`, `lowered`, ...).
        obstacle: why no quickstart can run, as sentences; empty when one can.
    """

    host: str
    python: str
    torch: InstalledTorch
    plugins: tuple[PluginInfo, ...]
    machine: dict[str, Any]
    settings: dict[str, Any]
    gpus: tuple[dict[str, Any], ...]
    driver: str | None
    runners: tuple[Runner, ...]
    lacking: tuple[Lacking, ...]
    assets: int
    folder: Path
    free: int
    cells: dict[str, int]
    obstacle: str

    def to_json(self) -> dict[str, Any]:
        """As JSON-able data; of plugins what is not their providers."""
        told = ("name", "distribution", "version", "status", "reason")
        return {field.name: getattr(self, field.name) for field in fields(self)} | {
            "torch": asdict(self.torch),
            "plugins": [{name: getattr(one, name) for name in told} for one in self.plugins],
            "runners": [asdict(one) for one in self.runners],
            "lacking": [asdict(one) for one in self.lacking],
            "folder": str(self.folder),
        }


def diagnose(table: PluginTable, folder: Path) -> Diagnosis:
    """What torch, the backends and the plan of the quickstart say of this machine.

    Args:
        folder: where runs go; it need not exist.
    """
    torch = installed_torch(HOST)
    gpus = () if torch.fault else _gpus()
    assets = known_assets(table)
    facts = arithmetic_facts("cpu") | speed_facts("cpu") | {"available_gib": _available_gib()}
    free = _free(folder)
    cells, obstacle = _first_plan(table, torch, free, folder)
    return Diagnosis(
        host=table.host_version,
        python=platform.python_version(),
        torch=torch,
        plugins=tuple(plugin for plugin in table.plugins if plugin.module != BUILTIN),
        machine={name: value for name, value in facts.items() if not name.startswith(SETTING)},
        settings={
            name.removeprefix(SETTING): value
            for name, value in facts.items()
            if name.startswith(SETTING)
        },
        gpus=gpus,
        driver=gpu_driver(),
        runners=tuple(_runners(table, torch, ("cpu", "cuda") if gpus else ("cpu",))),
        lacking=tuple(
            Lacking(name=asset.name, size=asset.size, users=users)
            for asset, users in assets.items()
            if asset.path is None
        ),
        assets=len(assets),
        folder=folder,
        free=free,
        cells=cells,
        obstacle=obstacle,
    )


def _gpus() -> tuple[dict[str, Any], ...]:
    try:
        return tuple(visible_gpus())
    except BaseException as error:  # a driver that does not fit torch
        if interrupts.asked_for(error):
            raise
        return ()


def _runners(table: PluginTable, torch: InstalledTorch, here: tuple[str, ...]) -> Iterator[Runner]:
    tools = [one for one in table.alone("quantizer").values() if one.external]
    for provider in (*table.alone("backend").values(), *tools):
        yield from _asked(table, provider, torch, here)


def _asked(
    table: PluginTable,
    provider: BackendProvider | QuantizerProvider,
    torch: InstalledTorch,
    here: tuple[str, ...],
) -> Iterator[Runner]:
    """One for each device that it runs on and that is here, else for its first."""
    devices = provider.devices if isinstance(provider, BackendProvider) else here
    for device in [one for one in devices if one in here] or devices[:1]:
        reason, exactness = "It needs a torch that works." if torch.fault else "", ""
        if not reason:
            try:
                reason, exactness = _asked_on(table, provider, device)
            except BaseException as error:  # also what breaks while its libraries are loaded
                if interrupts.asked_for(error):
                    raise
                reason = printable(error) if isinstance(error, TfqError) else f"{cause(error)}."
        yield Runner(
            kind=provider.kind,
            name=provider.name,
            device=device,
            reason=reason,
            exactness=exactness,
        )


def _asked_on(table: PluginTable, provider: Any, device: str) -> tuple[str, str]:
    """Why it cannot run, and which of its kernels are exact."""
    arguments: dict[str, Any] = dict(parse_options(provider.options, {}, provider.name))
    if isinstance(provider, QuantizerProvider):
        arguments["scheme"] = Scheme(
            wbits=provider.wbits[0], abits=provider.abits[0], policy=provider.policies[0]
        )
    made = table.create(provider, **arguments)
    reason = refusal(table, provider, made, device=device)
    if reason is not None:
        return printable(reason), ""
    return "", printable(made.exactness(device=device)) if isinstance(made, SaysExactness) else ""


def _first_plan(
    table: PluginTable, torch: InstalledTorch, free: int, folder: Path
) -> tuple[dict[str, int], str]:
    """The quickstart's cells by execution, and why it cannot run."""
    if torch.fault:
        return {}, torch.fault
    try:
        table.get("renderer", "html")
        plan = make_plan(load_suite(FIRST_SUITE), table)
    except BaseException as error:
        if interrupts.asked_for(error):
            raise
        return {}, printable(error) if isinstance(error, TfqError) else f"{cause(error)}."
    executions: list[str] = [one.execution for one in plan.cells if one.skip is None]
    cells = dict(Counter(executions))
    if not free:
        return cells, f"nothing can be written where runs go, '{folder}'. Change to another folder."
    if free < NEEDED_BYTES:
        return cells, f"only {free / 1e6:.0f} MB are free where runs go, '{folder}'. Make room."
    return cells, ""


def _free(folder: Path) -> int:
    """Bytes that may be written into `folder`, which need not exist; 0 when none can be."""
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return 0
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return 0


def _available_gib() -> float | None:
    """Memory that programs may take without swapping; None where Linux does not say."""
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
    except OSError:
        return None
    fields_of = dict(line.split(":", 1) for line in lines if ":" in line)
    kib = fields_of.get("MemAvailable", "").split()[:1]
    return round(int(kib[0]) / 2**20, 1) if kib else None
