"""Reading CIFAR-10 from the .npz of JPEG files."""

import hashlib

import numpy as np
import pytest

from tfq_bench_cifar10.data import load_cifar10


def test_images_come_in_file_order_with_their_labels(data_file):
    """Image i is the decoded i-th file, beside label i, and the digest is the file's."""
    data = load_cifar10(data_file)
    generator = np.random.default_rng(0)
    colours = np.stack([generator.integers(0, 256, 3, dtype=np.uint8) for _ in range(16)])
    assert data.train_images.shape == (16, 32, 32, 3)
    assert data.test_images.shape == (4, 32, 32, 3)
    assert np.uint8 == data.train_images.dtype
    # JPEG of one colour is that colour up to rounding.
    assert np.abs(data.train_images[:, 16, 16].astype(int) - colours.astype(int)).max() <= 6
    assert [i % 10 for i in range(16)] == data.train_labels.tolist()
    assert hashlib.sha256(data_file.read_bytes()).hexdigest() == data.digest


def test_a_missing_file_is_named(tmp_path):
    """The message names the path that was looked for."""
    with pytest.raises(FileNotFoundError, match=r"absent\.npz: expected CIFAR-10"):
        load_cifar10(tmp_path / "absent.npz")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_another_format_is_refused(tmp_path, content):
    """A file that is no .npz is refused by name, whatever numpy raises for it."""
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.npz: expected an .npz"):
        load_cifar10(path)


def test_missing_arrays_are_named(tmp_path, arrays):
    """The message names the array that is not there."""
    path = tmp_path / "part.npz"
    np.savez(path, **{name: value for name, value in arrays.items() if name != "test_offset"})
    with pytest.raises(ValueError, match="found no test_offset"):
        load_cifar10(path)


def test_labels_and_images_must_be_as_many(tmp_path, arrays):
    """A file with a label too few is refused, not misaligned."""
    path = tmp_path / "short.npz"
    np.savez(path, **{**arrays, "train_label": arrays["train_label"][1:]})
    with pytest.raises(ValueError, match="found 15 labels in train_label and 16 images"):
        load_cifar10(path)
