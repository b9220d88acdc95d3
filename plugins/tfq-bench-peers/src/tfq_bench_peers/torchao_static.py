"""Torchao's static int8 on x86: PT2E quantization of the exported graph, oneDNN's products."""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tfq_bench.api import (
    FULL_PRECISION,
    CalibrationNeeds,
    KernelUse,
    Lowered,
    LoweringError,
    StepCursor,
)
from tfq_bench_peers import pt2e
from tfq_bench_peers.calibration import calls, spread
from tfq_bench_peers.exported_network import GraphNetwork, exported, products, weight_scales
from tfq_bench_peers.packages import installed
from tfq_bench_peers.tensor_store import read_into, write

if TYPE_CHECKING:
    from tfq_bench.api import CalibrationData, Layer, LoadedModel, Progress, Scheme

__all__ = ["TorchAoStatic"]

RANGES = "ranges.json"
ROWS = 8
X86 = ("x86_64", "amd64")
OPERANDS = "uint8 x int8"
"""Of oneDNN's products here: the types of the quantizer's codes of activations and weights."""


class TorchAoStatic:
    """A contestant: `X86InductorQuantizer` for convolutions and linear layers.

    What is stored are the tensors of the converted graph and the ranges of activations. The graph
    itself is made anew from the model when it is loaded, and gets both of them.

    Args:
        samples: sampler states that its observers see. reduce_range: see `plugin`.
    """

    def __init__(self, *, scheme: Scheme, samples: int, reduce_range: str) -> None:
        self._scheme, self._samples = scheme, samples
        self._reduce_range = reduce_range

    def check(self, *, device: str) -> None:
        """LoweringError without the packages, on a GPU, or on a processor that is no x86."""
        installed("torchao", "torchao", "tfq-bench-cpu")
        if device != "cpu":
            raise LoweringError(
                f"torchao lowers static int8 to oneDNN, which runs on the CPU; the suite asks for "
                f"{device}."
            )
        if platform.machine().lower() not in X86:
            raise LoweringError(
                "torchao's X86InductorQuantizer needs an x86-64 processor, found "
                f"'{platform.machine()}'; leave 'torchao-static' out on this machine."
            )

    @property
    def packages(self) -> tuple[str, ...]:
        """Versions of torchao and torch, whose kernels it calls."""
        return installed("torchao", "torchao", "torch")

    def calibration_needs(self, loaded: LoadedModel, *, images: int) -> CalibrationNeeds:
        """States of every step, each time of another image."""
        steps = len(loaded.sampler.timesteps)
        return spread(steps=steps, images=images, samples=self._samples)

    @torch.no_grad()
    def quantize(
        self,
        loaded: LoadedModel,
        data: CalibrationData,
        *,
        generator: torch.Generator,  # noqa: ARG002  (nothing is random)
        progress: Progress,
        folder: Path,
    ) -> None:
        """Writes the tensors of the converted graph, int8 weights among them, and the ranges.

        Raises:
            LoweringError: the model computes in 16 bits.
        """
        if loaded.model.dtype != torch.float32:
            raise LoweringError(
                "torchao's lowering to oneDNN is used for float32 networks; expected a model of "
                f"torch.float32, found {loaded.model.dtype}.",
                expected="torch.float32",
                found=str(loaded.model.dtype),
            )
        progress(0.0, "exporting")
        network = exported(loaded)
        reduced = self._reduced()
        prepared = pt2e.prepared(network.graph, reduced=reduced)
        for number, arguments in enumerate(calls(data, rows=ROWS)):
            progress(min(1.0, number * ROWS / len(data.x)), "torchao")
            prepared(*network.call.captured(loaded, *arguments))
        ranges = {"reduce_range": reduced, "scale_and_zero_point": pt2e.ranges(prepared)}
        (folder / RANGES).write_text(json.dumps(ranges, indent=1))
        write(pt2e.converted(prepared), folder)

    @torch.no_grad()
    def load(self, loaded: LoadedModel, folder: Path) -> Lowered:
        """The graph with the stored tensors and ranges, lowered once for any number of rows.

        Raises:
            LoweringError: the stored ones are of another graph, as of another version of torchao.
        """
        stored = json.loads((folder / RANGES).read_text())
        network = exported(loaded)
        prepared = pt2e.prepared(network.graph, reduced=stored["reduce_range"])
        prepared(*network.call.inputs)  # shows the weights to their observers
        pt2e.restore(prepared, stored["scale_and_zero_point"], folder / RANGES)
        converted = pt2e.converted(prepared)
        read_into(converted, folder)
        layers = loaded.topology.layers
        scales = weight_scales(converted, (layer.name for layer in layers))
        before = time.perf_counter()
        lowered = pt2e.lowered(converted, network.marked())
        seconds = time.perf_counter() - before
        found = products(lowered, scales)
        bits = 7 if stored["reduce_range"] else 8
        quantized = set(scales.values())
        uses = tuple(
            _use(layer, found.get(layer.name), bits) for layer in layers if layer.name in quantized
        )
        executed: dict[str, int] = {}
        return Lowered(
            network=GraphNetwork(
                lowered.forward,  # its hooks hold inputs against the number of rows of the example
                network.call,
                kernels=[use.kernel for use in uses],
                counts=executed,
                like=next(loaded.network.parameters()),
            ),
            step=StepCursor(loaded.device),
            execution="external",
            kernels=uses,
            executed=executed,
            details={
                "settings": {
                    "quantizer": "X86InductorQuantizer",
                    "module_types": ["Conv2d", "Linear"],
                    "reduce_range": stored["reduce_range"],
                    "samples": self._samples,
                    "compiled": False,
                },
                "remarks": _remarks(uses, reduced=stored["reduce_range"]),
                "lowering_s": round(seconds, 1),
            },
        )

    def _reduced(self) -> bool:
        return self._reduce_range == "enable" or (self._reduce_range == "auto" and saturates())


def saturates() -> bool:
    """Whether oneDNN's sums of bytes lose anything on this machine, as the backend `cpu` tries."""
    from tfq_bench_cpu import trials

    return trials.saturates()


def _use(layer: Layer, product: str | None, bits: int) -> KernelUse:
    """How a layer with int8 weights is executed, None when its product was not found."""
    low = product is not None and product.startswith("onednn")
    if product is None:
        kernel, fallback = "torchao ?", "no product of this layer is in the lowered graph"
    elif low:
        kernel, fallback = f"{product} {OPERANDS}", None
    else:
        kernel = f"{product} float32 x float32"
        fallback = "torchao's lowering finds no int8 form of it; weights are taken apart each time"
    return KernelUse(
        layer=layer.name,
        kernel=kernel,
        wbits=8,
        abits=bits if low else FULL_PRECISION,
        macs=layer.macs,
        fallback=fallback,
    )


def _remarks(uses: tuple[KernelUse, ...], *, reduced: bool) -> list[str]:
    low = sum(use.fallback is None for use in uses)
    found = [
        f"{low} of {len(uses)} layers multiply in int8; the others have int8 weights and multiply "
        "in float. It runs uncompiled."
    ]
    if reduced:
        why = "int8 sums saturate on this processor" if saturates() else "the suite asks for it"
        found.append(
            f"Activations of {low} layers really have 7 bits, not 8: torchao's 'reduce_range' is "
            f"on, as {why}."
        )
    elif saturates():
        found.append("Its int8 sums saturate on this processor, and 'reduce_range' is off.")
    return found
