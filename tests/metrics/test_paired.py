"""Per-image comparison with full precision."""

from __future__ import annotations

import numpy as np
import pytest

from tfq_bench.metrics.paired import PSNR_CAP, Paired, feature_cosine, psnr, ssim


def test_psnr_of_a_known_error():
    """An error of one level everywhere is 20 log10 255 dB, and identical images are capped."""
    reference = np.full((2, 16, 16, 3), 100, dtype=np.uint8)
    images = reference.copy()
    images[0] -= 1
    assert pytest.approx(psnr(images, reference), abs=1e-4) == [48.1308, PSNR_CAP]


def test_ssim_is_per_image():
    """An untouched image has 1, its inverted neighbour less, independent of the batch."""
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 256, (70, 16, 16, 3)).astype(np.uint8)
    images = reference.copy()
    images[66] = 255 - images[66]
    found = ssim(images, reference)
    assert found[66] < 0.0
    assert pytest.approx(np.delete(found, 66)) == [1.0] * 69


def test_ssim_of_flat_images_is_its_luminance_term():
    """Without structure only the means count: (2 m1 m2 + C1) / (m1^2 + m2^2 + C1)."""
    images, reference = (np.full((1, 16, 16, 3), v, dtype=np.uint8) for v in (50, 100))
    c1 = (0.01 * 255) ** 2
    expected = (2 * 50 * 100 + c1) / (50**2 + 100**2 + c1)
    assert [expected] == pytest.approx(ssim(images, reference), rel=1e-4)


def test_cosine_ignores_length():
    """Scaled features have cosine 1, orthogonal ones 0."""
    a, b = np.array([[1.0, 2.0], [1.0, 0.0]]), np.array([[3.0, 6.0], [0.0, 5.0]])
    assert pytest.approx(feature_cosine(a, b)) == [1.0, 0.0]


def test_values_are_means_against_the_named_cell(make_inputs):
    """Every value is the mean over images and says which cell it is measured against."""
    inputs = make_inputs(reference_cell="fp-cell")
    inputs.reference_images = inputs.images // 2
    values = {value.definition.name: value for value in Paired().evaluate(inputs)}
    assert {"psnr", "ssim", "feature-cosine"} == set(values)
    assert psnr(inputs.images, inputs.reference_images).mean() == pytest.approx(
        values["psnr"].value
    )
    assert {"fp-cell"} == {value.reference for value in values.values()}
    assert values["psnr"].interval.low < values["psnr"].value


def test_full_precision_is_not_compared_with_itself(make_inputs):
    """The reference cell has no paired numbers rather than perfect ones."""
    assert Paired().evaluate(make_inputs()) == ()


def test_images_below_the_window_have_no_ssim(make_inputs):
    """8x8 images get the other numbers."""
    inputs = make_inputs(reference_cell="fp-cell")
    inputs.images = inputs.images[:, :8, :8]
    inputs.reference_images = inputs.images
    assert [v.definition.name for v in Paired().evaluate(inputs)] == ["psnr", "feature-cosine"]
