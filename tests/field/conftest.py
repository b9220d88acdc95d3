"""What the field tests of the host share."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """A file of reference statistics under EfficientNet-Lite0, of 40 random images."""
    from tfq_bench.metrics.extractors import efficientnet_lite0
    from tfq_bench.metrics.reference import ReferenceStatistics

    images = np.random.default_rng(2).integers(0, 256, size=(40, 8, 8, 3)).astype(np.uint8)
    network = efficientnet_lite0()
    path = tmp_path_factory.mktemp("reference") / "reference.safetensors"
    features = network.features(images, device="cpu")
    ReferenceStatistics.of(features, network, {"data": "random"}).save(path)
    return path
