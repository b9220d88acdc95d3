"""Calibration data are uniform over the sampler's steps."""

from __future__ import annotations

from collections import Counter

from tfq_bench_qdiffusion.calibration import every_cth_step, uniform_needs


def test_every_cth_step_from_the_noisiest():
    """100 steps of which 20 are asked: every fifth, beginning with the first."""
    assert list(range(0, 100, 5)) == list(every_cth_step(100, 20))


def test_short_samplers_give_every_step():
    """No step is asked for twice when the sampler has fewer than wanted."""
    assert list(range(10)) == list(every_cth_step(10, 20))


def test_clean_end_is_not_cut_off():
    """50 steps of which 20 are asked: every second, up to the end."""
    assert list(range(0, 50, 2)) == list(every_cth_step(50, 20))


def test_every_step_has_the_same_images():
    """20 x 256 samples, as in the paper; fewer when there are fewer images."""
    samples = uniform_needs(100, steps=20, samples=256, images=300).samples
    assert 5120 == len(set(samples))
    assert {256} == set(Counter(step for step, _ in samples).values())
    assert 20 * 16 == len(uniform_needs(100, steps=20, samples=256, images=16).samples)
