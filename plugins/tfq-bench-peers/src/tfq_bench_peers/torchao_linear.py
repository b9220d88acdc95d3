"""Torchao: linear layers with int8 or float8 weights, and activations quantized as they come."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tfq_bench.api import (
    FULL_PRECISION,
    CalibrationNeeds,
    Lowered,
    LoweringError,
    StepCursor,
)
from tfq_bench_peers.packages import installed
from tfq_bench_peers.tensor_store import read_into, write
from tfq_bench_peers.torch_layers import count_kernels, kernels_of

if TYPE_CHECKING:
    from tfq_bench.api import CalibrationData, LoadedModel, Progress, Scheme

__all__ = ["TorchAo"]

FLOAT8_SINCE = (8, 9)
"""Compute capability of the first GPUs that multiply float8."""


class TorchAo:
    """A contestant: `quantize_` of all linear layers. It sees no calibration data.

    Args:
        scheme: activations of 32 bits ask for quantized weights alone.
        dtype: `int8` or `float8`.
    """

    def __init__(self, *, scheme: Scheme, dtype: str) -> None:
        self._scheme, self._dtype = scheme, dtype

    def check(self, *, device: str) -> None:
        """LoweringError without the package, or for float8 without a GPU that has it."""
        installed("torchao", "torchao")
        if self._dtype == "int8":
            return
        found = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
        if not device.startswith("cuda") or found is None or found < FLOAT8_SINCE:
            shown = f"one of {found[0]}.{found[1]}" if found else "none"
            raise LoweringError(
                f"float8 products need a GPU of compute capability 8.9 or later, found {shown}; "
                f'the suite asks for {device}. Use dtype = "int8".'
            )

    @property
    def packages(self) -> tuple[str, ...]:
        """Versions of torchao and torch, whose kernels it calls."""
        return installed("torchao", "torchao", "torch")

    def calibration_needs(self, loaded: LoadedModel, *, images: int) -> CalibrationNeeds:  # noqa: ARG002
        """Nothing: scales of activations are computed when they are there."""
        return CalibrationNeeds()

    def quantize(
        self,
        loaded: LoadedModel,
        data: CalibrationData,  # noqa: ARG002
        *,
        generator: torch.Generator,  # noqa: ARG002  (nothing is random)
        progress: Progress,
        folder: Path,
    ) -> None:
        """Writes the tensors of the quantized network."""
        progress(0.0, "torchao")
        write(self._network(loaded), folder)

    def load(self, loaded: LoadedModel, folder: Path) -> Lowered:
        """The network with the stored tensors, executed by torch."""
        network = self._network(loaded)
        read_into(network, folder)
        executed: dict[str, int] = {}
        uses = kernels_of(loaded, network, dict.fromkeys(_swapped(network), 8))
        count_kernels(network, uses, executed)
        return Lowered(
            network=network,
            step=StepCursor(loaded.device),
            execution="external",
            kernels=uses,
            executed=executed,
            details={
                "settings": {"config": repr(self._config()), "layers": "linear", "compiled": False},
                "remarks": [
                    f"{self._dtype} in {len(uses)} linear layers; convolutions stay "
                    f"{_dtype_of(loaded.network)}, as torchao has none."
                ],
            },
        )

    def _network(self, loaded: LoadedModel) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about how torchao registers its classes
            from torchao.quantization import quantize_

            network = copy.deepcopy(loaded.network)
            quantize_(network, self._config())
        if not _swapped(network):
            raise LoweringError("torchao found no linear layer that it quantizes in this network.")
        return network

    def _config(self) -> Any:
        """Of torchao; compiler settings of the process are left as they are."""
        from torchao import quantization as ao

        weights_only = self._scheme.abits == FULL_PRECISION
        if self._dtype == "float8":
            if weights_only:
                return ao.Float8WeightOnlyConfig(set_inductor_config=False)
            return ao.Float8DynamicActivationFloat8WeightConfig(
                granularity=ao.PerRow(), set_inductor_config=False
            )
        if weights_only:
            return ao.Int8WeightOnlyConfig(set_inductor_config=False, version=2)
        return ao.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False, version=2)


def _swapped(network: nn.Module) -> list[str]:
    """Names of the layers whose weights are torchao's."""
    return [
        name
        for name, module in network.named_modules()
        if hasattr(getattr(module, "weight", None), "__tensor_flatten__")
    ]


def _dtype_of(network: nn.Module) -> str:
    return str(next(network.parameters()).dtype).removeprefix("torch.")
