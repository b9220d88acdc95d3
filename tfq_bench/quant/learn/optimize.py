"""Repeating one optimisation step many times, on CUDA as a captured graph.

A step on one block is some hundred small kernels: launched one by one they leave a GPU idle most of
the time, replayed as a graph they do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["optimize", "optimizer_for", "set_lr"]

EAGER_STEPS = 3
"""Steps before the capture, which let libraries choose algorithms and allocate."""


def optimize(
    step: Callable[[], None],
    count: int,
    *,
    before: Callable[[int], None],
    device: torch.device | str,
    tell: Callable[[float], None],
) -> None:
    """Calls `before(i)` and `step()` for i in range(count).

    Args:
        step: reads and writes tensors at fixed places only, and draws nothing at random.
        before: prepares iteration i by writing into these tensors; never captured.
        tell: called with the finished fraction now and then.
    """
    every = max(1, count // 20)
    captured = torch.device(device).type == "cuda" and count > 2 * EAGER_STEPS
    if captured:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for number in range(EAGER_STEPS):
                before(number)
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        step = graph.replay
    for number in range(EAGER_STEPS if captured else 0, count):
        before(number)
        step()
        if number % every == every - 1:
            tell((number + 1) / count)


def optimizer_for(
    parameters: Sequence[nn.Parameter], lr: float, device: torch.device | str
) -> torch.optim.Adam:
    """Adam whose steps can be captured on CUDA."""
    if torch.device(device).type == "cuda":
        rate = torch.tensor(lr, device=device)
        return torch.optim.Adam(parameters, lr=rate, capturable=True, fused=True)
    return torch.optim.Adam(parameters, lr=lr, foreach=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Changes the learning rate, also of a captured step."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
