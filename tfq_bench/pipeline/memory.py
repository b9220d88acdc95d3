"""Large networks in little memory: what the C library does with what was freed."""

from __future__ import annotations

import ctypes
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["return_freed_memory"]

_log = logging.getLogger("tfq_bench.pipeline")

LARGE_NETWORK = 2**30
BLOCK = 2**20
_M_MMAP_THRESHOLD = -3  # <malloc.h>


def return_freed_memory(network: nn.Module) -> None:
    """Lets blocks of 1 MiB or more go back to the system when they are freed, for large networks.

    glibc raises the size from which it does so up to 32 MiB while a process runs; activations of
    a large network are smaller, stay in its heap and fragment it. One forward pass of the SDXL
    U-Net left 0.1 to 1.8 GiB there, by chance. Each block then costs page faults, which a small
    network would feel; below 1 GiB of weights nothing is changed. Does nothing without glibc.
    """
    if sum(parameter.nbytes for parameter in network.parameters()) < LARGE_NETWORK:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or mallopt(_M_MMAP_THRESHOLD, BLOCK) != 1:
        _log.debug("no mallopt here: freed memory may stay with the process.")
