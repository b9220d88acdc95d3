"""A small data file in the format of the real one, a training of two steps, random weights."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from tfq_bench.testing.plugin_host import plugin_host
from tfq_bench_cifar10 import embedded, train
from tfq_bench_cifar10.network import NETWORKS, Network, build_trainable

__all__ = ["plugin_host"]


def jpegs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` JPEG files one after another (uint8) and their offsets (int64, count + 1)."""
    generator = np.random.default_rng(seed)
    files = []
    for _ in range(count):
        buffer = io.BytesIO()
        colour = generator.integers(0, 256, 3, dtype=np.uint8)
        Image.fromarray(np.broadcast_to(colour, (32, 32, 3)).copy()).save(buffer, "JPEG")
        files.append(buffer.getvalue())
    offset = np.cumsum([0, *map(len, files)], dtype=np.int64)
    return np.frombuffer(b"".join(files), np.uint8), offset


@pytest.fixture(scope="session")
def arrays() -> dict[str, np.ndarray]:
    """The arrays of a small, valid data file."""
    train, train_offset = jpegs(16, seed=0)
    test, test_offset = jpegs(4, seed=1)
    return {
        "train_jpeg": train,
        "train_offset": train_offset,
        "train_label": np.arange(16, dtype=np.uint8) % 10,
        "test_jpeg": test,
        "test_offset": test_offset,
        "test_label": np.arange(4, dtype=np.uint8),
    }


@pytest.fixture(scope="session")
def data_file(arrays: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small, valid data file."""
    path = tmp_path_factory.mktemp("data") / "cifar10.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="session", params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> Network:
    """Each of the networks."""
    return NETWORKS[request.param]


@pytest.fixture(scope="session")
def trained(
    data_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Network, int], Path]:
    """`trained(network, steps)`: the folder of so many steps on the CPU, made once."""
    made: dict[tuple[str, int], Path] = {}

    def train_it(network: Network, steps: int) -> Path:
        key = (network.name, steps)
        if key not in made:
            out = tmp_path_factory.mktemp("train") / "run"
            words = ["--data", str(data_file), "--out", str(out), "--device", "cpu"]
            words += ["--network", network.name, "--steps", str(steps), "--batch", "4"]
            train.main(words)
            made[key] = out
        return made[key]

    return train_it


@pytest.fixture(scope="session")
def checkpoint(trained: Callable[[Network, int], Path]) -> Path:
    """The folder of a training of two steps on the CPU."""
    return trained(NETWORKS["unet"], 2)


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the embedded one, with random float16 weights."""
    folder = tmp_path_factory.mktemp("weights")
    for network in NETWORKS.values():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            values = build_trainable(network).state_dict()
        # A fresh DiT is the identity: its weights must be away from zero to be told apart.
        generator = torch.Generator().manual_seed(1)
        noise = {
            name: value + 0.02 * torch.randn(value.shape, generator=generator)
            for name, value in values.items()
        }
        content = save({name: value.half().contiguous() for name, value in noise.items()})
        (folder / f"{network.file}.safetensors").write_bytes(content)
        stated = {"weights_sha256": hashlib.sha256(content).hexdigest()}
        (folder / f"{network.file}.json").write_text(json.dumps(stated))
    return folder


@pytest.fixture
def embed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Lets the files in a folder stand in for the embedded weights: `embed(folder)`."""
    return lambda folder: monkeypatch.setattr(embedded, "WEIGHTS", folder)
