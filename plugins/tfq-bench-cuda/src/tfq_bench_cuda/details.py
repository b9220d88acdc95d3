"""What the backend tells of a lowered network, for the lower stage's result: plain JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfq_bench.api import LoadedModel
    from tfq_bench.quant import QuantizedState
    from tfq_bench_cuda.blocks.fuse import BlockUse
    from tfq_bench_cuda.kernels.unpack import Scratch
    from tfq_bench_cuda.layers import CudaLayer

__all__ = ["describe_blocks", "describe_weights"]


def describe_blocks(
    uses: Iterable[BlockUse], loaded: LoadedModel, state: QuantizedState
) -> list[dict[str, Any]]:
    """Each known block: its layers, their share of the network's multiply-accumulates, the reason.

    `reason` is None where the block is fused. Shares of blocks inside each other do not overlap,
    as long as passes name the layers that they run themselves.
    """
    topology, dropped = loaded.topology, state.dropped(loaded.topology)
    total = sum(layer.macs for layer in topology.layers if layer.name not in dropped)
    return [
        {
            "block": use.name,
            "kind": use.kind,
            "layers": list(use.layers),
            "mac_share": sum(topology.layer(name).macs for name in use.layers) / max(total, 1),
            "reason": use.reason,
            "remarks": list(use.remarks),
        }
        for use in uses
    ]


def describe_weights(layers: Mapping[str, CudaLayer], scratch: Scratch | None) -> dict[str, Any]:
    """Bytes on the device by how weights lie there, and why some are not packed.

    Layers that are joined are counted once: theirs are rows of the joined weight.
    """
    sizes = {"int8": 0, "packed": 0}
    unpacked: dict[str, str] = {}
    for name, layer in layers.items():
        for weight in layer.weights:
            sizes["int8" if weight.scratch is None else "packed"] += weight.stored.nbytes
            if weight.reason is not None:
                unpacked[name] = weight.reason
    return {
        "int8_bytes": sizes["int8"],
        "packed_bytes": sizes["packed"],
        "scratch_bytes": 0 if scratch is None else scratch.nbytes,
        "bytes": sum(sizes.values()) + (0 if scratch is None else scratch.nbytes),
        "not_packed": unpacked,
    }
