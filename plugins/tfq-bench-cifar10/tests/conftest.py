"""A data file of sixteen training and four test images, in the format of the real one."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


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
