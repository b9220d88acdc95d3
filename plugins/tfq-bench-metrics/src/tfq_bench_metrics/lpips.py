"""LPIPS (arXiv:1801.03924) to the full-precision image of the same noise, with AlexNet.

The linear heads ship inside torchmetrics; the backbone is torchvision's AlexNet, whose weights the
user fetches or passes as a file. Without them there is no LPIPS: a random backbone would give some
number too.
"""

from __future__ import annotations

import pickle
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tfq_bench.api import AssetError, MetricDefinition, MetricValue, fetched_file, sha256_of
from tfq_bench.metrics import mean_over_images, require_file
from tfq_bench_metrics.lpips_files import ALEXNET_FILE, ALEXNET_SHA256

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench.api import EvaluationInputs

__all__ = ["Lpips"]

BATCH = 64
_OFFER = (
    "LPIPS needs the AlexNet weights of torchvision, published as alexnet-owt-7be5be79.pth on "
    "download.pytorch.org (folder models). Fetch the file with 'tfq-bench assets fetch "
    "alexnet-owt-7be5be79.pth', or set 'weights' to the path of your copy, and 'sha256' if you "
    "mean another file. Without it, leave the metric 'lpips' out; 'paired' compares features of a "
    "network that is installed."
)


class Lpips:
    """`lpips-alexnet`; none for the full-precision cell itself.

    Raises:
        AssetError: the weights are missing or have another digest; says where they come from.
    """

    def __init__(self, *, weights: str, sha256: str) -> None:
        self._path, self._digest = require_file(
            weights or str(fetched_file(ALEXNET_FILE) or ""),
            sha256 or ALEXNET_SHA256,
            what="the AlexNet weights",
            offer=_OFFER,
        )
        self._heads = Path(str(files("torchmetrics") / "functional/image/lpips_models/alex.pth"))

    names = ("lpips-alexnet",)

    def evaluate(self, inputs: EvaluationInputs) -> tuple[MetricValue, ...]:
        """Mean over images; none for the full-precision cell."""
        reference = inputs.reference_images
        if reference is None:
            return ()
        definition = MetricDefinition(
            name="lpips-alexnet",
            unit="",
            direction="lower",
            summary="Mean LPIPS against the full-precision image of the same noise.",
            parameters={
                "formula": 1,
                "against": "full precision",
                "backbone": self._digest,
                "heads": sha256_of(self._heads),
                "resize": "none",
                "sampling": dict(inputs.sampling),
            },
        )
        distances = self._distances(inputs.images, reference, inputs.loaded.device)
        cell = inputs.reference_cell
        return (mean_over_images(definition, distances, inputs, reference=cell),)

    @torch.no_grad()
    def _distances(self, images: np.ndarray, reference: np.ndarray, device: str) -> np.ndarray:
        network = self._network().to(device)
        found = []
        for start in range(0, len(images), BATCH):
            pair = (_pixels(a[start : start + BATCH], device) for a in (images, reference))
            found.append(network(*pair).double().cpu().numpy().reshape(-1))
        return np.concatenate(found)

    def _network(self) -> Any:
        from torchmetrics.functional.image.lpips import _LPIPS

        # Building it draws initial weights, which must not move the caller's generator.
        with torch.random.fork_rng(devices=[]):
            network = _LPIPS(
                pretrained=True, net="alex", pnet_rand=True, model_path=str(self._heads)
            )
        try:
            loaded = torch.load(self._path, map_location="cpu", weights_only=True)
            layers = {
                name.removeprefix("features."): value
                for name, value in loaded.items()
                if name.startswith("features.")
            }
            # The slices keep torchvision's layer numbers, prefixed with the slice's own name.
            renamed = {name: layers[name.split(".", 1)[1]] for name in network.net.state_dict()}
            network.net.load_state_dict(renamed)
        except (pickle.UnpicklingError, RuntimeError, AttributeError, KeyError) as error:
            raise AssetError(
                f"{self._path}: expected the state of torchvision's AlexNet, found something else "
                f"({type(error).__name__}). {_OFFER}"
            ) from error
        return network


def _pixels(images: np.ndarray, device: str) -> Tensor:
    """float32 `[B, 3, H, W]` in [-1, 1], which LPIPS is defined on."""
    tensor = torch.from_numpy(np.array(images)).to(device)
    return tensor.permute(0, 3, 1, 2).float() / 127.5 - 1
