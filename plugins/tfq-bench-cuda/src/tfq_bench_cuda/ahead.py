"""Layers of a state, read and unpacked on other cores while the device makes weights of others."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfq_bench.quant import QuantizedLayer

__all__ = ["ahead"]

_WORKERS = 4


def ahead(layers: Mapping[str, QuantizedLayer]) -> Iterator[tuple[str, QuantizedLayer]]:
    """Name and layer in order; each is read once, a few of them before they are asked for.

    A state on disk reads a layer, and unpacks its codes, whenever it is looked at.
    """
    workers = min(_WORKERS, len(os.sched_getaffinity(0)))
    waiting: deque[tuple[str, Future[QuantizedLayer]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for name in layers:
            waiting.append((name, pool.submit(layers.__getitem__, name)))
            if len(waiting) > workers:
                first, layer = waiting.popleft()
                yield first, layer.result()
        while waiting:
            first, layer = waiting.popleft()
            yield first, layer.result()
