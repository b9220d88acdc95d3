"""SDNQ, under the GPL-3.0: quantizes and executes in a process of its own, never in this one."""

from __future__ import annotations

import functools
import json
import subprocess
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
    timestep_tensor,
)
from tfq_bench_peers.network_call import NetworkCall
from tfq_bench_peers.sdnq_network import VARIABLE, ProcessNetwork, SdnqProcess, interpreter
from tfq_bench_peers.sdnq_process.portable import pack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tfq_bench.api import CalibrationData, LoadedModel, Progress, Scheme

__all__ = ["Sdnq"]

NEEDED, USED = ("sdnq", "torch", "safetensors"), ("sdnq", "torch", "openvino")
"""Packages that must be there; and those that decide what it computes, where they are there."""

ROWS = 2
START_S = 60.0

_VERSIONS = """
import importlib.metadata as metadata, json
found = {}
for name in ("sdnq", "torch", "safetensors", "openvino"):
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


class Sdnq:
    """A contestant: linear layers, if asked for convolutions too. It sees no calibration data.

    Args:
        scheme: activations of 32 bits ask for quantized weights alone.
        convolutions, smallest: see `plugin`.
    """

    def __init__(self, *, scheme: Scheme, convolutions: bool, smallest: int) -> None:
        self._scheme = scheme
        self._convolutions, self._smallest = convolutions, smallest

    def check(self, *, device: str) -> None:  # noqa: ARG002
        """LoweringError when the interpreter does not start, or lacks a package."""
        self._versions()

    @property
    def packages(self) -> tuple[str, ...]:
        """Versions of SDNQ, and of torch and OpenVINO, whose kernels it calls, there."""
        found = self._versions()
        return tuple(f"{name}=={found[name]}" for name in USED if name in found)

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
        progress(0.0, "SDNQ")
        process = SdnqProcess()
        try:
            self._prepare(process, "quantize", loaded, folder)
        finally:
            process.end()

    @torch.no_grad()
    def load(self, loaded: LoadedModel, folder: Path) -> Lowered:
        """A network whose calls are answered by a process that holds the stored tensors."""
        process = SdnqProcess()
        layers = self._prepare(process, "load", loaded, folder)
        executed: dict[str, int] = {}
        details: dict[str, Any] = {"settings": self._settings()}
        network = ProcessNetwork(
            process,
            NetworkCall(loaded),
            counts=executed,
            details=details,
            like=next(loaded.network.parameters()),
        )
        model, device = loaded.model, loaded.device
        x = torch.zeros(ROWS, *model.latent_shape, device=device)
        t = timestep_tensor(loaded.sampler.timesteps[0], ROWS, device)
        model.predict(network, x, t, model.conditions(range(ROWS), device=device))
        assert network.seen is not None
        uses = self._uses(loaded, layers, network.seen["products"])
        network.kernels = [use.kernel for use in uses]
        low = sum(use.fallback is None for use in uses)
        details["remarks"] = [
            f"{low} of {len(uses)} quantized layers multiply in 8 bits; {_rest(loaded, uses)}.",
            "It runs in a process of its own, uncompiled; times include the way there and back.",
        ]
        return Lowered(
            network=network,
            step=StepCursor(loaded.device),
            execution="external",
            kernels=uses,
            executed=executed,
            details=details,
        )

    def _prepare(
        self, process: SdnqProcess, do: str, loaded: LoadedModel, folder: Path
    ) -> list[str]:
        """Names of the layers that the process has quantized.

        Raises:
            LoweringError: none, or the process cannot.
        """
        answer, _ = process.ask(
            do,
            pack(loaded.network),
            settings=self._settings(),
            layers=[layer.name for layer in loaded.topology.layers],
            threads=torch.get_num_threads(),
            device=loaded.device,
            folder=str(folder.resolve()),
        )
        layers = list(map(str, answer["layers"]))
        if not layers:
            raise LoweringError(
                "SDNQ found no layer that it quantizes in this network; it leaves layers of fewer "
                f"than {self._smallest} weights as they are (option 'smallest')."
            )
        return layers

    def _settings(self) -> dict[str, Any]:
        products = self._scheme.abits != FULL_PRECISION
        return {
            "weights_dtype": f"int{self._scheme.wbits}",
            "use_quantized_matmul": products,
            "quant_conv": self._convolutions,
            "use_quantized_matmul_conv": self._convolutions and products,
            "minimum_allowed_numel": self._smallest,
        }

    def _uses(
        self, loaded: LoadedModel, layers: list[str], products: Mapping[str, Any]
    ) -> tuple[KernelUse, ...]:
        uses = []
        for layer in loaded.topology.layers:
            if layer.name not in layers:
                continue
            kernel, bits = products.get(layer.name, ("not seen", [FULL_PRECISION]))
            low = max(bits) <= 8
            uses.append(
                KernelUse(
                    layer=layer.name,
                    kernel=str(kernel),
                    wbits=self._scheme.wbits,
                    abits=8 if low else min(max(bits), FULL_PRECISION),
                    macs=layer.macs,
                    fallback=None
                    if low
                    else f"its product is one of {max(bits)} bits"
                    if layer.name in products
                    else "no product was seen in it",
                )
            )
        return tuple(uses)

    def _versions(self) -> dict[str, str]:
        python = interpreter()
        found = _installed(python)
        missing = [name for name in NEEDED if name not in found]
        if missing:
            raise LoweringError(
                f"it needs {' and '.join(map(repr, missing))} in the interpreter {python}, a "
                f"process of its own: '{python} -m pip install sdnq', or name another one in "
                f"${VARIABLE}."
            )
        return found


@functools.cache
def _installed(python: str) -> dict[str, str]:
    """Versions of packages that an interpreter has; nothing of them is imported.

    Raises:
        LoweringError: it does not start.
    """
    try:
        done = subprocess.run(
            [python, "-c", _VERSIONS], capture_output=True, text=True, timeout=START_S, check=True
        )
        return dict(json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise LoweringError(
            f"'{python}' is expected to be a Python interpreter that has SDNQ, and does not start "
            f"as one ({type(error).__name__}); correct ${VARIABLE}."
        ) from error


def _rest(loaded: LoadedModel, uses: tuple[KernelUse, ...]) -> str:
    left = len(loaded.topology.layers) - len(uses)
    return f"{left} of the network's {len(loaded.topology.layers)} layers are not quantized"
