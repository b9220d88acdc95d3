"""Content keys: the same inputs give the same key, on any machine, on any day.

A key is the head of a SHA-256 over canonical JSON. Worker counts, host names, paths and dates are
never among the inputs.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfq_bench.border import MetricDefinition

__all__ = ["canonical", "definition_id", "digest"]


def canonical(value: Any) -> str:
    """`value` as JSON with sorted keys and no spaces.

    Raises:
        ValueError: for NaN and infinities, which JSON cannot say.
        TypeError: for anything that is not JSON.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def digest(value: Any, length: int = 16) -> str:
    """The first `length` hexadecimal digits of the SHA-256 of `canonical(value)`."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def definition_id(definition: MetricDefinition) -> str:
    """`name@digest` of a metric's definition; equal ids mean comparable numbers."""
    content = {
        "name": definition.name,
        "unit": definition.unit,
        "direction": definition.direction,
        "parameters": definition.parameters,
    }
    return f"{definition.name}@{digest(content, 8)}"
