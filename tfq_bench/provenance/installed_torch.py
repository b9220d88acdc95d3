"""Whether the torch that is installed here can be imported and computes."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass

from tfq_bench.foreign import interrupts
from tfq_bench.foreign.text import printable

__all__ = ["InstalledTorch", "installed_torch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledTorch:
    """The torch of this Python.

    Args:
        version: empty when it cannot be imported.
        cuda: CUDA release that it was built for, empty for a CPU build.
        fault: why nothing can be computed with it and what to do, as sentences; empty when it
            works.
    """

    version: str = ""
    cuda: str = ""
    fault: str = ""


def installed_torch(host: str) -> InstalledTorch:
    """What is known once torch was imported and has added two numbers.

    Args:
        host: distribution whose metadata say which torch is needed.
    """
    oldest = _oldest(host)
    wanted = f"torch>={oldest}" if oldest else "torch"
    again = f"pip install --force-reinstall '{wanted}'"
    try:
        import torch

        total = float(torch.ones(2).sum())
        found = str(torch.__version__), str(torch.version.cuda or "")
    except BaseException as error:  # a damaged library raises what it likes
        if interrupts.asked_for(error):
            raise
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            return InstalledTorch(fault=f"torch is not installed. Run: pip install '{wanted}'.")
        return InstalledTorch(
            fault=f"torch cannot be used: {type(error).__name__}: {printable(error, 300)}. "
            f"Install it again: {again}."
        )
    version, cuda = found
    fault = ""
    if total != 2.0:
        fault = f"torch adds 1 and 1 to {total:g}. Install it again: {again}."
    elif _numbers(version) < _numbers(oldest):
        fault = f"torch {oldest} or newer is needed. Run: pip install '{wanted}'."
    return InstalledTorch(version=version, cuda=cuda, fault=fault)


def _oldest(host: str) -> str:
    """`"2.11"`, the torch that a distribution requires; empty where it does not say."""
    try:
        required = importlib.metadata.requires(host) or []
    except Exception:  # damaged metadata, whatever their bytes bring up
        return ""
    found = [re.match(r"torch\s*\(?>=\s*([\d.]+)", line) for line in required]
    return next((one[1] for one in found if one), "")


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)(?:\.(\d+))?", version)
    return tuple(int(part or 0) for part in found.groups()) if found else ()
