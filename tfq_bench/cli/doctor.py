"""`tfq-bench doctor`: what this machine can run, what is missing, and what to run first."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfq_bench.assets.declared import readable_size
from tfq_bench.foreign.text import printable
from tfq_bench.host.plugins import discover

if TYPE_CHECKING:
    from tfq_bench.host.inspection import PluginInfo
    from tfq_bench.plan.diagnosis import Diagnosis, Runner

__all__ = ["HELP", "NAME", "add_arguments", "execute"]

NAME = "doctor"
HELP = (
    "Say what this machine can run, what is missing, and which kernels are exact here. Runs no "
    "suite and downloads nothing; fails when the quickstart cannot run."
)

WIDTH = 100
"""Characters of a line; what is longer goes on in the next."""

LABEL = 12

_ADVICE = {
    "broken": "Upgrade or reinstall {dist}, or leave it out: --block {name}.",
    "incompatible": "What it offers otherwise stays usable.",
    "unknown-hook": "What it offers stays usable.",
    "conflict": "Or leave one of them out with --block.",
}
"""What to do, where the reason does not say it already."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON for scripts")


def execute(args: argparse.Namespace) -> int:
    """Prints the findings; 0 when a quickstart can run, else 1."""
    from tfq_bench.plan.diagnosis import diagnose

    found = diagnose(discover(), Path("runs"))
    if args.json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        for label, text in _lines(found):
            print(_laid_out(label, text))
    return 1 if found.obstacle else 0


def _laid_out(label: str, text: str) -> str:
    return textwrap.fill(
        printable(text),
        WIDTH,
        initial_indent=f"{label:<{LABEL}}",
        subsequent_indent=" " * LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _lines(found: Diagnosis) -> Iterator[tuple[str, str]]:
    from tfq_bench.plan.diagnosis import FIRST_SUITE

    yield "tfq-bench", f"{_short(found.host)}, Python {found.python}, {_torch(found)}"
    yield from _plugins(found.plugins)
    yield from _machine(found)
    yield from _runners("backends", [one for one in found.runners if one.kind == "backend"])
    yield from _runners("tools", [one for one in found.runners if one.kind == "quantizer"])
    yield "files", _files(found)
    written = f"{readable_size(found.free)} free" if found.free else "nothing can be written"
    yield "disk", f"{written} in {found.folder.absolute()}"
    if found.cells:
        cells = ", ".join(f"{count} {execution}" for execution, count in found.cells.items())
        yield FIRST_SUITE, f"{sum(found.cells.values())} cells: {cells}"
    if found.obstacle:
        yield "obstacle", f"The {FIRST_SUITE} cannot run here: {found.obstacle}"
    else:
        yield "run first", f"tfq-bench run {FIRST_SUITE}"


def _torch(found: Diagnosis) -> str:
    return f"torch {found.torch.version}" if found.torch.version else "no torch that works"


def _plugins(plugins: tuple[PluginInfo, ...]) -> Iterator[tuple[str, str]]:
    sound = [plugin for plugin in plugins if plugin.status == "ok"]
    names = dict.fromkeys(
        f"{plugin.distribution.removeprefix('tfq-bench-')} {_short(plugin.version)}"
        for plugin in sound
    )
    yield "plugins", ", ".join(names) or "none"
    for plugin in plugins:
        if plugin.status == "ok":
            continue
        advice = _ADVICE.get(plugin.status, "").format(dist=plugin.distribution, name=plugin.name)
        source = f"{plugin.distribution} {_short(plugin.version)}"
        told = f"! {plugin.name} ({source}) is {plugin.status}: {printable(plugin.reason, 300)}"
        yield "", f"{told} {advice}"


def _machine(found: Diagnosis) -> Iterator[tuple[str, str]]:
    machine: dict[str, Any] = found.machine
    sets = machine["instruction_sets"]
    absent = [] if any("vnni" in one or "amx" in one for one in sets) else ["no VNNI", "no AMX"]
    known = [*sets, *absent] if machine["machine"].lower() in ("x86_64", "amd64") else []
    cores = f"{machine['usable_cores']} of {machine['cores']} cores"
    yield "processor", "; ".join(filter(None, (machine["cpu"], cores, ", ".join(known))))
    if found.settings:
        yield "settings", ", ".join(f"{name}={value}" for name, value in found.settings.items())
    free = machine["available_gib"]
    free = "" if free is None else f", {free:g} GiB of them available"
    yield "memory", f"{machine['memory_gib']} GiB{free}"
    for number, gpu in enumerate(found.gpus):
        memory = f"{gpu['memory_bytes'] / 2**30:.0f} GiB"
        yield f"GPU {number}", f"{gpu['name']}, {memory}, compute capability {gpu['capability']}"
    if found.gpus or found.driver:
        yield "driver", found.driver or "unknown"
    if not found.gpus:
        yield (
            "GPUs",
            "none that torch sees" + (", though there is a driver" if found.driver else ""),
        )


def _runners(label: str, runners: list[Runner]) -> Iterator[tuple[str, str]]:
    """One line for each, but those that share a reason in one."""
    groups: dict[str, list[Runner]] = {}
    for one in runners:
        runs = f"runs; {one.exactness}" if one.exactness else "runs"
        groups.setdefault(f"not here: {one.reason}" if one.reason else runs, []).append(one)
    for told, members in groups.items():
        devices: dict[str, list[str]] = {}
        for one in members:
            devices.setdefault(one.name, []).append(one.device)
        names = ", ".join(f"{name} on {' and '.join(on)}" for name, on in devices.items())
        yield label, f"{names}: {told}"
        label = ""


def _files(found: Diagnosis) -> str:
    if not found.lacking:
        return "nothing is missing"
    names = dict.fromkeys(one.name for one in found.lacking)
    return (
        f"{len(found.lacking)} of {found.assets} that models and metrics know of are not here: "
        f"{', '.join(names)}. 'tfq-bench assets list' has sizes and what needs them."
    )


def _short(version: str) -> str:
    """Without the digest of editable code."""
    return version.partition("+")[0]
