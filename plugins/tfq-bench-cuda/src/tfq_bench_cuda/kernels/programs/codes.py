"""The expression of a code, which quantization and the ending of a product share."""

from typing import Any

import tilelang.language as T

__all__ = ["at_step", "code"]


def at_step(table: Any, step: Any) -> Any:
    """The entry of a table `[T]` or `[1]` at the step `[1]`."""
    return table[T.min(T.cast(step[0], "int32"), table.shape[0] - 1)]


def code(x: Any, inverse: Any, zero_point: Any, bits: int) -> Any:
    """int8 of a float; `nearbyint` goes half to even, as torch rounds.

    Args:
        inverse, zero_point: float32.
    """
    moved = T.nearbyint(T.cast(x, "float32") * inverse) + zero_point
    inside = T.max(T.min(moved, T.float32(2**bits - 1)), T.float32(0))
    return T.cast(T.cast(inside, "int32") - 128, "int8")
