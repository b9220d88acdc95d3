"""LPIPS with a backbone from a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torchmetrics.functional.image.lpips import _LPIPS

from tfq_bench.api import AssetError
from tfq_bench_metrics.lpips import Lpips


@pytest.fixture(scope="module")
def alexnet_file(tmp_path_factory) -> tuple[Path, str]:
    """Random weights of AlexNet's convolutions in torchvision's format, and their digest."""
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torchvision.models.alexnet(weights=None)
    # Without the classifier, which LPIPS does not use and which is 200 MB.
    torch.save(
        {f"features.{name}": value for name, value in network.features.state_dict().items()}, path
    )
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_distance_is_that_of_torchmetrics_on_the_given_weights(alexnet_file, make_inputs):
    """The mean agrees with torchmetrics' module around the same backbone."""
    path, digest = alexnet_file
    inputs = make_inputs(reference_cell="fp-cell")
    inputs.reference_images = inputs.images[::-1].copy()
    (value,) = Lpips(weights=str(path), sha256=digest).evaluate(inputs)
    module = _LPIPS(net="alex", pnet_rand=True)
    backbone = torchvision.models.alexnet(weights=None).features
    weights = {k.removeprefix("features."): v for k, v in torch.load(path).items()}
    backbone.load_state_dict(weights)
    for part in (getattr(module.net, f"slice{i}") for i in range(1, 6)):
        for name, layer in part.named_children():
            layer.load_state_dict(backbone[int(name)].state_dict())
    pair = (
        torch.from_numpy(a).permute(0, 3, 1, 2) / 127.5 - 1
        for a in (inputs.images, inputs.reference_images)
    )
    with torch.no_grad():
        expected = float(module(*pair).mean())
    assert expected > 0
    assert expected == pytest.approx(value.value, rel=1e-5)
    assert digest == value.definition.parameters["backbone"]


def test_identical_images_have_distance_zero(alexnet_file, make_inputs):
    """An image is no distance from itself."""
    path, digest = alexnet_file
    inputs = make_inputs(reference_cell="fp-cell")
    inputs.reference_images = inputs.images
    (value,) = Lpips(weights=str(path), sha256=digest).evaluate(inputs)
    assert value.value == 0.0


def test_missing_weights_come_with_an_offer():
    """Without a file there is no random backbone, but a sentence about where to get it."""
    with pytest.raises(AssetError, match=r"not given.*alexnet-owt-7be5be79\.pth.*'weights'"):
        Lpips(weights="", sha256="")


def test_other_files_are_refused(alexnet_file, tmp_path, make_inputs):
    """A file of another digest, or that is no AlexNet, gives no number."""
    with pytest.raises(AssetError, match="expected 7be5be79"):
        Lpips(weights=str(alexnet_file[0]), sha256="")
    path = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(2)}, path)
    inputs = make_inputs(reference_cell="fp-cell")
    inputs.reference_images = np.zeros_like(inputs.images)
    metric = Lpips(weights=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(AssetError, match="state of torchvision's AlexNet"):
        metric.evaluate(inputs)
