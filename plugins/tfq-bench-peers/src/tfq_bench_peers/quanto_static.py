"""optimum-quanto: weights of every layer in int8, inputs of linear layers with static ranges."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tfq_bench.api import FULL_PRECISION, CalibrationNeeds, Lowered, StepCursor
from tfq_bench_peers.calibration import calls, spread
from tfq_bench_peers.packages import installed
from tfq_bench_peers.torch_layers import count_kernels, kernels_of

if TYPE_CHECKING:
    from tfq_bench.api import CalibrationData, LoadedModel, Progress, Scheme

__all__ = ["Quanto"]

TENSORS, MAP = "network.safetensors", "quantization_map.json"
ROWS = 8


class Quanto:
    """A contestant: `quantize`, `Calibration` over the states, `freeze`.

    Outputs of layers stay float: quanto's quantized outputs do not survive the split of an
    attention's queries, keys and values. So convolutions, which take their inputs as they come,
    have quantized weights only.

    Args:
        scheme: activations of 32 bits ask for quantized weights alone.
        samples: sampler states that it sees.
    """

    def __init__(self, *, scheme: Scheme, samples: int) -> None:
        self._scheme, self._samples = scheme, samples

    def check(self, *, device: str) -> None:  # noqa: ARG002
        """LoweringError without the package."""
        installed("quanto", "optimum-quanto")

    @property
    def packages(self) -> tuple[str, ...]:
        """Versions of quanto and torch, whose kernels it calls."""
        return installed("quanto", "optimum-quanto", "torch")

    def calibration_needs(self, loaded: LoadedModel, *, images: int) -> CalibrationNeeds:
        """States of every step, each time of another image; nothing for weights alone."""
        if not self._activations:
            return CalibrationNeeds()
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
        """Writes quanto's own state: tensors, and which layer has which types."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from optimum import quanto

        network = copy.deepcopy(loaded.network)
        activations = quanto.qint8 if self._activations else None
        quanto.quantize(network, weights=quanto.qint8, activations=activations)
        _keep_outputs_float(network)
        if self._activations:
            with quanto.Calibration(streamline=False):
                for number, (x, timestep, condition) in enumerate(calls(data, rows=ROWS)):
                    progress(min(1.0, number * ROWS / len(data.x)), "quanto")
                    loaded.model.predict(network, x, timestep, condition)
        quanto.freeze(network)
        tensors = {
            name: value.detach().clone().contiguous()
            for name, value in network.state_dict().items()
            if isinstance(value, torch.Tensor)
        }
        save_file(tensors, folder / TENSORS)
        (folder / MAP).write_text(json.dumps(quanto.quantization_map(network), indent=1))

    def load(self, loaded: LoadedModel, folder: Path) -> Lowered:
        """The network with the stored tensors, executed by torch."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from optimum import quanto

        layers = json.loads((folder / MAP).read_text())
        tensors = load_file(folder / TENSORS, device=loaded.device)
        network = copy.deepcopy(loaded.network)
        quanto.requantize(network, tensors, layers, device=torch.device(loaded.device))
        _keep_outputs_float(network)
        network.eval().requires_grad_(False)
        known = {layer.name for layer in loaded.topology.layers}
        executed: dict[str, int] = {}
        uses = kernels_of(loaded, network, {name: 8 for name in layers if name in known})
        count_kernels(network, uses, executed)
        low = sum(use.fallback is None for use in uses)
        return Lowered(
            network=network,
            step=StepCursor(loaded.device),
            execution="external",
            kernels=uses,
            executed=executed,
            details={
                "settings": self._settings(),
                "remarks": [
                    f"{low} of {len(uses)} layers multiply in int8; the others have int8 weights "
                    "and multiply in float."
                ],
            },
        )

    @property
    def _activations(self) -> bool:
        return self._scheme.abits != FULL_PRECISION

    def _settings(self) -> dict[str, Any]:
        return {
            "weights": "qint8",
            "activations": "qint8, inputs of linear layers" if self._activations else "none",
            "outputs": "float",
            "streamline": False,
        }


def _keep_outputs_float(network: nn.Module) -> None:
    for module in network.modules():
        if hasattr(module, "disable_output_quantization"):
            module.disable_output_quantization()
