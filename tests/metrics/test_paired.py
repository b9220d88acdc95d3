"""Per-image comparison with full precision."""

from __future__ import annotations

import math
from statistics import fmean, pvariance

import numpy as np
import pytest

from tfq_bench.metrics.paired import (
    PSNR_CAP,
    Paired,
    centred_psnr,
    feature_cosine,
    psnr,
    ssim,
)
from tfq_bench.stats.intervals import bootstrap_indices


def test_psnr_of_a_known_error():
    """An error of one level everywhere is 20 log10 255 dB, and identical images are capped."""
    reference = np.full((2, 16, 16, 3), 100, dtype=np.uint8)
    images = reference.copy()
    images[0] -= 1
    assert pytest.approx(psnr(images, reference), abs=1e-4) == [48.1308, PSNR_CAP]


def test_centred_psnr_rests_on_the_variance_of_the_error():
    """Mean over channels of each image's population variance, counted pixel by pixel."""
    rng = np.random.default_rng(3)
    images, reference = rng.integers(0, 256, (2, 3, 5, 4, 3)).astype(np.uint8)
    expected = []
    for mine, full in zip(images, reference, strict=True):
        errors = [
            [int(a) - int(b) for a, b in zip(mine[..., c].flat, full[..., c].flat, strict=True)]
            for c in range(3)
        ]
        expected.append(10 * math.log10(255**2 / fmean(map(pvariance, errors))))
    assert expected == pytest.approx(centred_psnr(images, reference).tolist(), rel=1e-12)


def test_a_colour_cast_costs_psnr_and_no_centred_psnr():
    """Another colour is added to every image; the error that is left is as large as before."""
    rng = np.random.default_rng(4)
    reference = rng.integers(40, 216, (4, 16, 16, 3))
    noisy = reference + rng.integers(-3, 4, reference.shape)
    cast = noisy + np.array([[9, -9, 4], [0, 5, -7], [-12, 3, 3], [20, 20, 20]])[:, None, None]
    reference, noisy, cast = (a.astype(np.uint8) for a in (reference, noisy, cast))
    assert (psnr(cast, reference) < psnr(noisy, reference) - 3).all()
    assert centred_psnr(noisy, reference) == pytest.approx(centred_psnr(cast, reference), rel=1e-12)
    # Rounding noise has hardly any mean, so that without a cast the two are nearly one.
    assert centred_psnr(noisy, reference) == pytest.approx(psnr(noisy, reference), abs=0.1)


def test_what_remains_of_a_pure_cast():
    """Nothing where it is over the whole image, the same in every pixel; else its variance."""
    reference = np.full((3, 16, 16, 3), 250, dtype=np.uint8)
    images = reference.copy()
    images[0] -= np.array([1, 2, 3], dtype=np.uint8)
    images[1, :8] -= 8  # half of the image: 4 above and 4 below its mean
    reference[2, :8] = 255  # a cast of 5 more that ends at 255: half of the image has none
    images[2] = 255
    half = [10 * math.log10(255**2 / level**2) for level in (4.0, 2.5)]
    assert [PSNR_CAP, *half] == pytest.approx(centred_psnr(images, reference).tolist())


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
    assert {"psnr", "psnr-centred", "ssim", "feature-cosine"} == set(values)
    for name, per_image in (("psnr", psnr), ("psnr-centred", centred_psnr)):
        expected = per_image(inputs.images, inputs.reference_images)
        assert expected.mean() == pytest.approx(values[name].value)
        resampled = expected[bootstrap_indices(len(expected), 200)].mean(axis=1)
        assert values[name].replicates == pytest.approx(resampled.tolist())
    assert {"fp-cell"} == {value.reference for value in values.values()}
    assert all(v.interval.low < v.value < v.interval.high for v in values.values())


def test_full_precision_is_not_compared_with_itself(make_inputs):
    """The reference cell has no paired numbers rather than perfect ones."""
    assert Paired().evaluate(make_inputs()) == ()


def test_images_below_the_window_have_no_ssim(make_inputs):
    """8x8 images get the other numbers."""
    inputs = make_inputs(reference_cell="fp-cell")
    inputs.images = inputs.images[:, :8, :8]
    inputs.reference_images = inputs.images
    names = [value.definition.name for value in Paired().evaluate(inputs)]
    assert ["psnr", "psnr-centred", "feature-cosine"] == names
