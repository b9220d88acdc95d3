"""What the engine really runs: the products of quantized layers in a compiled model, by layer."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from tfq_bench_openvino.engine import Compiled
from tfq_bench_openvino.layer_graph import PREFIX

__all__ = ["Execution"]

_NAME = re.compile(rf"{re.escape(PREFIX)}(.+)#\d+(?:/.*)?")
_BYTES = ("u8", "i8")
_NO_WORK = ("Const", "Input", "Output")


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How the products of a compiled model are executed.

    Args:
        primitives: by layer, one entry a part: for instance `Convolution jit_avx2_I8`.
        int8: the layers all of whose products multiply bytes.
        others: how many operations of each type the model runs beside them.
    """

    primitives: dict[str, tuple[str, ...]]
    int8: frozenset[str]
    others: dict[str, int]

    @classmethod
    def of(cls, compiled: Compiled) -> Execution:
        """As the executed graph tells."""
        primitives: dict[str, list[str]] = {}
        floats: set[str] = set()
        others: Counter[str] = Counter()
        for node in compiled.nodes():
            layer = _layer(node)
            if layer is not None:
                primitives.setdefault(layer, []).append(_primitive(node))
                if node["runtimePrecision"] not in _BYTES:
                    floats.add(layer)
            elif node["layerType"] not in _NO_WORK:
                others[node["layerType"]] += 1
        return cls(
            primitives={name: tuple(found) for name, found in primitives.items()},
            int8=frozenset(primitives.keys() - floats),
            others=dict(sorted(others.items())),
        )

    def to_json(self) -> dict[str, Any]:
        """For a record: how many products ran as which primitive, and which did for each layer."""
        counts = Counter(one for found in self.primitives.values() for one in found)
        return {
            "products": dict(sorted(counts.items())),
            "layers": {name: list(found) for name, found in self.primitives.items()},
            "others": self.others,
        }


def _layer(node: dict[str, Any]) -> str | None:
    """The quantized layer whose product a node executes, None for other nodes."""
    for origin in str(node.get("originalLayersNames", "")).split(","):
        if found := _NAME.fullmatch(origin):
            return found[1]
    return None


def _primitive(node: dict[str, Any]) -> str:
    return f"{node['layerType']} {node['primitiveType']}"
