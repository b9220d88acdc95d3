"""The GPUs that this process sees, as far as a reader of its numbers may ask.

A task computes on one GPU, the first that is visible. So only that one belongs to a result: how
many there are beside it, and which of some equal ones it was, changes no number.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["gpu_driver", "gpu_name", "gpu_speed", "visible_gpus"]


def visible_gpus(most: int | None = None) -> list[dict[str, Any]]:
    """The first GPUs that torch finds, in its order; imports torch.

    Args:
        most: how many are described, None for all.

    Returns:
        `[{"name", "memory_bytes", "capability", "multiprocessors"}, ...]`, empty without a GPU.
    """
    import torch

    if not torch.cuda.is_available():
        return []
    numbers = range(torch.cuda.device_count())[:most]
    found = [torch.cuda.get_device_properties(number) for number in numbers]
    return [
        {
            "name": gpu.name,
            "memory_bytes": gpu.total_memory,
            "capability": f"{gpu.major}.{gpu.minor}",
            "multiprocessors": gpu.multi_processor_count,
        }
        for gpu in found
    ]


def gpu_name() -> str:
    """Name of the GPU that tasks compute on, the first that torch finds, or ""; imports torch."""
    return "".join(gpu["name"] for gpu in visible_gpus(1))


def gpu_speed(gpu: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the speed of one of `visible_gpus`: times of equal ones compare.

    Memory counts in whole GiB: of two equal cards the one with a screen has a few megabytes less.
    """
    return {
        "name": gpu["name"],
        "memory_gib": round(gpu["memory_bytes"] / 2**30),
        "capability": gpu["capability"],
        "multiprocessors": gpu["multiprocessors"],
    }


def gpu_driver() -> str | None:
    """Version text of the NVIDIA kernel module, None without one."""
    try:
        lines = Path("/proc/driver/nvidia/version").read_text("utf-8").splitlines()
    except OSError:
        return None
    return " ".join(lines[0].partition(":")[2].split()) if lines else None
