"""Notes on numbers that were computed in two ways: other threads, kernels or versions of torch.

Sums of floats depend on their order. What is computed once differs in the last bits; what is
learned from it step by step can end elsewhere, and no interval over images knows that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tfq_bench.stats.results import CellResults, Measured, by_identity

__all__ = ["arithmetic_notes", "pairs_of"]

Pair = tuple[Measured, Measured]


def arithmetic_notes(pairs: Iterable[Pair], *, words: str) -> tuple[str, ...]:
    """A sentence for each way in which numbers differ from those that they are compared with.

    Facts that one side does not state say nothing.

    Args:
        pairs: what was there before, and what is compared with it.
        words: what the two are called, `"baseline -> run"`.
    """
    counts: dict[str, int] = {}
    for before, after in pairs:
        differ = ", ".join(
            f"{name} {before.arithmetic[name]} -> {after.arithmetic[name]}"
            for name in before.arithmetic
            if name in after.arithmetic and before.arithmetic[name] != after.arithmetic[name]
        )
        if differ:
            counts[differ] = counts.get(differ, 0) + 1
    return tuple(
        f"{count} numbers were computed in another way: {differ} ({words}). Sums are then taken in "
        "another order, and learned cells may differ by more than their intervals know."
        for differ, count in counts.items()
    )


def pairs_of(before: Sequence[CellResults], after: Sequence[CellResults]) -> Iterator[Pair]:
    """The numbers that two runs have in common; cells match by their place in the grid."""
    others = by_identity(after)
    for cell in before:
        other = others.get(cell.identity)
        for name, measured in cell.values.items():
            if other is not None and name in other.values:
                yield measured, other.values[name]
