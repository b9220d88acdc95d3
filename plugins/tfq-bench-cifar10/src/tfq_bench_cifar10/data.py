"""CIFAR-10 from one .npz of JPEG files: what the model is trained on and compared with."""

from __future__ import annotations

import hashlib
import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["Cifar10", "load_cifar10"]

ARRAYS = (
    "train_jpeg",
    "train_offset",
    "train_label",
    "test_jpeg",
    "test_offset",
    "test_label",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cifar10:
    """The decoded data set.

    Args:
        train_images, test_images: uint8 `[N, 32, 32, 3]`.
        train_labels, test_labels: uint8 `[N]`, 0..9.
        digest: SHA-256 of the file, hexadecimal.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    digest: str


def load_cifar10(path: Path) -> Cifar10:
    """The data set in the file at `path`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not the expected .npz; says which arrays are missing.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected CIFAR-10 as an .npz of JPEG files, found no file. See the README of "
            "tfq-bench-cifar10 for its arrays."
        )
    content = path.read_bytes()
    try:
        arrays = dict(np.load(io.BytesIO(content), allow_pickle=False))
        missing = [name for name in ARRAYS if name not in arrays]
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: expected an .npz of JPEG files, found another format. See the README of "
            "tfq-bench-cifar10 for its arrays."
        ) from error
    if missing:
        raise ValueError(
            f"{path}: expected the arrays {', '.join(ARRAYS)}, found no {', '.join(missing)}. See "
            "the README of tfq-bench-cifar10."
        )
    for part in ("train", "test"):
        files, labels = len(arrays[f"{part}_offset"]) - 1, len(arrays[f"{part}_label"])
        if files != labels:
            raise ValueError(
                f"{path}: expected one label for each {part} image, found {labels} labels in "
                f"{part}_label and {files} images in {part}_offset. Make the file again."
            )
    return Cifar10(
        train_images=_decode(arrays["train_jpeg"], arrays["train_offset"]),
        train_labels=arrays["train_label"],
        test_images=_decode(arrays["test_jpeg"], arrays["test_offset"]),
        test_labels=arrays["test_label"],
        digest=hashlib.sha256(content).hexdigest(),
    )


def _decode(jpeg: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """uint8 `[N, 32, 32, 3]`; file i is `jpeg[offset[i]:offset[i + 1]]`."""

    def one(i: int) -> np.ndarray:
        with Image.open(io.BytesIO(jpeg[offset[i] : offset[i + 1]].tobytes())) as image:
            return np.asarray(image.convert("RGB"))

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(one, range(len(offset) - 1))))
