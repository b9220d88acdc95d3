"""OpenVINO with NNCF: its post-training quantization of the converted graph, on the CPU."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tfq_bench.api import (
    FULL_PRECISION,
    CalibrationNeeds,
    KernelUse,
    Lowered,
    LoweringError,
    StepCursor,
)
from tfq_bench_peers.calibration import calls, spread
from tfq_bench_peers.network_call import NetworkCall
from tfq_bench_peers.openvino_network import Executed, OpenVinoNetwork
from tfq_bench_peers.packages import installed

if TYPE_CHECKING:
    from tfq_bench.api import CalibrationData, Layer, LoadedModel, Progress, Scheme

__all__ = ["NncfOpenVino"]

GRAPH = "graph.xml"
SEVEN_BITS = 64
"""Largest code of a weight that NNCF's overflow fix leaves: -64 to 63."""


class NncfOpenVino:
    """A contestant: weights and activations in int8 wherever NNCF finds that OpenVINO has it.

    Args:
        samples: sampler states that NNCF sees. overflow_fix, model_type, precision: see `plugin`.
    """

    def __init__(
        self, *, scheme: Scheme, samples: int, overflow_fix: str, model_type: str, precision: str
    ) -> None:
        self._scheme, self._samples = scheme, samples
        self._overflow_fix, self._model_type = overflow_fix, model_type
        self._precision = precision

    def check(self, *, device: str) -> None:
        """LoweringError without the packages, or on a GPU."""
        installed("nncf", "openvino", "nncf")
        if device != "cpu":
            raise LoweringError(f"OpenVINO runs on the CPU, the suite asks for {device}.")

    @property
    def packages(self) -> tuple[str, ...]:
        """Versions of OpenVINO and NNCF."""
        return installed("nncf", "openvino", "nncf")

    def calibration_needs(self, loaded: LoadedModel, *, images: int) -> CalibrationNeeds:
        """States of every step, each time of another image."""
        steps = len(loaded.sampler.timesteps)
        return spread(steps=steps, images=images, samples=self._samples)

    def quantize(
        self,
        loaded: LoadedModel,
        data: CalibrationData,
        *,
        generator: torch.Generator,  # noqa: ARG002  (nothing is random)
        progress: Progress,
        folder: Path,
    ) -> None:
        """Writes `graph.xml` and `graph.bin`, OpenVINO's own format.

        Raises:
            LoweringError: the model computes in 16 bits.
        """
        if loaded.model.dtype != torch.float32:
            raise LoweringError(
                "OpenVINO is given float32 networks, and its own option 'precision' says what it "
                f"computes in; expected a model of torch.float32, found {loaded.model.dtype}.",
                expected="torch.float32",
                found=str(loaded.model.dtype),
            )
        from tfq_bench_openvino.runtime import openvino, without_telemetry

        with without_telemetry():
            import nncf

        call = NetworkCall(loaded)
        progress(0.0, "converting")
        with _quiet(), torch.no_grad():
            graph = openvino.convert_model(call.traced, example_input=call.inputs)
            for number, tensor in enumerate(call.inputs):
                graph.inputs[number].get_node().set_partial_shape(
                    openvino.PartialShape([-1, *tensor.shape[1:]] if tensor.dim() else [])
                )
            graph.validate_nodes_and_infer_types()
        progress(0.3, "NNCF")
        rows = [
            tuple(tensor.numpy() for tensor in call.captured(loaded, *arguments))
            for arguments in calls(data, rows=1)
        ]
        fix = nncf.OverflowFix.ENABLE if self._seven_bits() else nncf.OverflowFix.DISABLE
        with _quiet():
            quantized = nncf.quantize(
                graph,
                nncf.Dataset(rows),
                subset_size=len(rows),
                model_type=nncf.ModelType.TRANSFORMER
                if self._model_type == "transformer"
                else None,
                fast_bias_correction=True,
                advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=fix),
            )
            openvino.save_model(quantized, folder / GRAPH, compress_to_fp16=False)

    def load(self, loaded: LoadedModel, folder: Path) -> Lowered:
        """The graph, compiled when it is called; see `OpenVinoNetwork`."""
        executed: dict[str, int] = {}
        network = OpenVinoNetwork(
            folder / GRAPH,
            NetworkCall(loaded),
            counts=executed,
            precision=self._precision,
            like=next(loaded.network.parameters()),
        )
        largest = network.largest_codes()
        uses = [
            _use(layer, largest[layer.name], network.executed.get(layer.name))
            for layer in loaded.topology.layers
            if layer.name in largest
        ]
        return Lowered(
            network=network,
            step=StepCursor(loaded.device),
            execution="external",
            kernels=tuple(uses),
            executed=executed,
            details={"settings": self._settings(), "remarks": self._remarks(uses)},
        )

    def _seven_bits(self) -> bool:
        return self._overflow_fix == "enable" or (self._overflow_fix == "auto" and saturates())

    def _settings(self) -> dict[str, Any]:
        return {
            "overflow_fix": "enable" if self._seven_bits() else "disable",
            "model_type": self._model_type,
            "fast_bias_correction": True,
            "subset_size": self._samples,
            "precision": self._precision,
        }

    def _remarks(self, uses: list[KernelUse]) -> list[str]:
        seven = sum(use.wbits == 7 for use in uses)
        if self._seven_bits():
            why = "int8 sums saturate on this processor" if saturates() else "the suite asks for it"
            return [
                f"Weights of {seven} of {len(uses)} layers really have 7 bits, not 8: NNCF's "
                f"overflow fix is on, as {why}."
            ]
        if saturates():
            return ["Its int8 sums saturate on this processor, and its overflow fix is off."]
        return []


def saturates() -> bool:
    """Whether OpenVINO's sums of bytes lose anything on this machine, as its backend tries."""
    from tfq_bench_openvino import trials

    return trials.saturates()


def _use(layer: Layer, largest_code: int, ran: Executed | None) -> KernelUse:
    """How a layer with int8 weights is executed, None when nothing of that name was compiled."""
    if ran is None:
        kernel, fallback = "openvino ?", "no product of this layer is in the compiled graph"
    else:
        kernel, fallback = ran.kernel, None if ran.int8 else "OpenVINO computes it in float"
    return KernelUse(
        layer=layer.name,
        kernel=kernel,
        wbits=7 if largest_code <= SEVEN_BITS else 8,
        abits=FULL_PRECISION if fallback else 8,
        macs=layer.macs,
        fallback=fallback,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Progress bars and notes of the tools are kept from the output, which scripts may read."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
