"""The expression of a code, which quantization and the ending of a product share."""

from typing import Any

import tilelang.language as T

__all__ = ["at_step", "code"]


def at_step(table: Any, step: Any) -> Any:
    """The entry of a table `[T]` or `[1]` at the step `[1]`."""
    return table[T.min(T.cast(step[0], "int32"), table.shape[0] - 1)]


_ROUNDING = 1.5 * 2**23
"""Added to a float, it leaves no bits for a fraction: the sum is rounded, half to even as by torch,
and its last byte is the integer. A round and a conversion take four times as long."""


def code(x: Any, inverse: Any, zero_point: Any, bits: int) -> Any:
    """int8 of a float.

    Args:
        inverse, zero_point: float32.
    """
    lowest = _ROUNDING - 128
    rounded = T.cast(x, "float32") * inverse + T.float32(_ROUNDING)
    moved = rounded + (zero_point - T.float32(128))
    inside = T.max(T.min(moved, T.float32(lowest + 2**bits - 1)), T.float32(lowest))
    return T.cast(T.reinterpret(inside, "int32"), "int8")
