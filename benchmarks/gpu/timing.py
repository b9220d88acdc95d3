"""Milliseconds by CUDA events, contestants taking turns; and what is made of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Times = dict[str, list[float]]
"""Milliseconds of every contestant, one for each round."""


def captured(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Replays of a CUDA graph of `run`, after warming up on a side stream."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()

    def replay(_kept=run):  # the graph reads the network's tensors, but does not hold them
        graph.replay()
        return found

    return replay


def interleaved(
    calls: Mapping[str, Callable], rounds: int, *, cold: bool, in_a_row: int = 1, warmup: int = 2
) -> Times:
    """One turn of each contestant a round, in an order that rotates.

    Before what is timed the GPU gets other work, so that it does not wait for the host's first
    launch: a call that does not count, or that which empties the cache.

    Args:
        cold: whether the second-level cache is emptied before each turn.
        in_a_row: calls a turn, whose mean counts.
    """
    flush = torch.empty(256 * 2**20, dtype=torch.int8, device="cuda") if cold else None
    for run in calls.values():
        for _ in range(warmup):
            run()
    names = list(calls)
    times: Times = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            if flush is not None:
                flush.zero_()
            else:
                calls[name]()
            begin.record()
            for _ in range(in_a_row):
                calls[name]()
            end.record()
            torch.cuda.synchronize()
            times[name].append(begin.elapsed_time(end) / in_a_row)
    return times


def ratio(times: Times, base: str, name: str) -> float:
    """How many times as fast as `base`: the median of the ratios within a round; NaN without it."""
    if base not in times:
        return math.nan
    return statistics.median(b / v for b, v in zip(times[base], times[name], strict=True))


def sqnr_db(reference: Tensor, output: Tensor) -> float:
    """Signal to noise of an output against FP32, in dB; infinite when they are equal."""
    error = (reference.double() - output.double()).square().sum().item()
    return math.inf if error == 0 else 10 * math.log10(_power(reference) / error)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first column is text and the others numbers."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def number(value: float, digits: int = 2) -> str:
    """With so many digits; nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _power(x: Tensor) -> float:
    return float(x.double().square().sum())
