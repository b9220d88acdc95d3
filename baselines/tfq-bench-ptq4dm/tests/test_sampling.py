"""Timesteps follow the stated distribution, and states are paired with timesteps as stated."""

from __future__ import annotations

import pytest

from tfq_bench_ptq4dm.sampling import draw_indices, draw_samples


def test_normal_timesteps_have_the_clamped_distributions_mean_and_deviation():
    """NDTC's histogram: N(0.4, 0.1), which hardly reaches the clamps, over 1,000 steps."""
    drawn = draw_indices(4096, 1000, sampling="normal", mu=0.4, sigma=0.1)
    mean = sum(drawn) / len(drawn)
    deviation = (sum((t - mean) ** 2 for t in drawn) / len(drawn)) ** 0.5
    assert mean == pytest.approx(400, abs=1)
    assert deviation == pytest.approx(100, abs=1)


def test_what_lies_outside_is_clamped_not_lost():
    """N(0.4, 0.4) has 15.9 % below 0 and 6.7 % above 1: they pile up at both ends."""
    drawn = draw_indices(1000, 250, sampling="normal", mu=0.4, sigma=0.4)
    assert len(drawn) == 1000
    # The first of 250 bins also holds what lies in [0, 1/250): 0.24 %.
    assert drawn.count(0) == pytest.approx(161, abs=2)
    assert drawn.count(249) == pytest.approx(68, abs=2)


def test_uniform_timesteps_are_equally_frequent():
    """Every step is drawn the same number of times."""
    drawn = draw_indices(40, 10, sampling="uniform", mu=0.4, sigma=0.4)
    assert [4] * 10 == [drawn.count(t) for t in range(10)]


def test_timesteps_are_skewed_to_the_clean_end():
    """A mean below 0.5 gives steps late in execution, whose states are nearly clean."""
    samples = draw_samples(100, 10, 5, sampling="normal", mu=0.1, sigma=0.05)
    assert all(one.state >= 7 for one in samples)


def test_state_and_timestep_belong_together():
    """Except in the mirrored variant, a state goes with the timestep at which it was taken."""
    for sampling in ("normal", "uniform"):
        samples = draw_samples(64, 10, 8, sampling=sampling, mu=0.4, sigma=0.4)
        assert all(one.state == one.label for one in samples)


def test_mirrored_pairs_as_the_released_code():
    """The state after execution step t is labelled with the t-th timestep from the clean end."""
    samples = draw_samples(200, 10, 200, sampling="mirrored", mu=0.4, sigma=0.4)
    assert all(one.state - 1 == 9 - one.label for one in samples)
    assert set(range(1, 11)) == {one.state for one in samples}


def test_released_draws_what_mirrored_draws():
    """The two differ in what the network is told, and not in the states."""
    mirrored, released = (
        draw_samples(200, 10, 20, sampling=sampling, mu=0.4, sigma=0.4)
        for sampling in ("mirrored", "released")
    )
    assert mirrored == released


def test_equal_timesteps_go_to_different_images():
    """While there are enough images no sample is repeated, and images are used evenly."""
    samples = draw_samples(128, 10, 64, sampling="normal", mu=0.4, sigma=0.4)
    assert 128 == len(set(samples))
    assert [2] * 64 == [sum(one.image == image for one in samples) for image in range(64)]
