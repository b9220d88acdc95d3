"""What a table must say of the machine that it was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Sequence
from pathlib import Path

__all__ = ["described"]

FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
"""What decides how fast bytes and bfloat16 are multiplied."""


def described(cores: Sequence[int]) -> str:
    """The processor with its flags, how busy it is, which cores are used, and the packages.

    Args:
        cores: that contestants run on; empty for those of this process.
    """
    text = Path("/proc/cpuinfo").read_text()
    name = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    known = set(re.search(r"^flags\s*:\s*(.*)$", text, re.MULTILINE)[1].split())
    flags = " ".join(flag for flag in FLAGS if flag in known)
    used = sorted(cores or os.sched_getaffinity(0))
    return (
        f"{name[1] if name else 'unknown processor'} ({flags}), {os.cpu_count()} logical cores, "
        f"run on {len(used)}: {_shared(used)}, load {os.getloadavg()[0]:.1f}, "
        + ", ".join(f"{package} {_version(package)}" for package in ("torch", "openvino"))
    )


def _shared(cores: Sequence[int]) -> str:
    """The cores, and whether two are threads of one."""
    physical = set()
    for core in cores:
        file = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
        physical.add(file.read_text().strip() if file.exists() else str(core))
    told = " ".join(map(str, cores))
    if len(physical) == len(cores):
        return f"{told} (each a core of its own)"
    return f"{told} (threads of {len(physical)} cores)"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
