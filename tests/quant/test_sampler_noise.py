"""The noise of a prediction takes the place of as much of the sampler's."""

import math

import pytest
import torch

from tfq_bench.quant.sampler_noise import noise_share
from tfq_bench.testing.tiny import load_tiny

STEPS = 5
STOCHASTIC = "ddim-stochastic"


def alpha_bars(loaded):
    """Of the tiny model's schedule at each step, and 1 at the end."""
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), dim=0)
    return [float(kept[t - 1]) for t in loaded.sampler.timesteps] + [1.0]


def test_the_equations_of_ancestral_ddim():
    """Sigma and A of arXiv:2010.02502, equations 12 and 16, and of the paper sigma'^2."""
    loaded = load_tiny(steps=STEPS, sampler=STOCHASTIC)
    ab = alpha_bars(loaded)
    for step in range(STEPS - 1):
        now, after = ab[step], ab[step + 1]
        sigma2 = (1 - after) / (1 - now) * (1 - now / after)
        gain = math.sqrt(1 - after - sigma2) - math.sqrt(after * (1 - now) / now)
        variance = 0.3 * sigma2 / gain**2
        assert pytest.approx(math.sqrt(0.7)) == noise_share(loaded, step, variance)


def test_the_variance_of_the_next_state_is_what_the_sampler_wants():
    """Measured: noise in the prediction and what is left of the sampler's add up to sigma^2."""
    loaded = load_tiny(steps=STEPS, sampler=STOCHASTIC)
    generator = torch.Generator().manual_seed(0)
    x = e = torch.zeros(500, 3, 8, 8)
    noise, z = torch.randn(2, *x.shape, generator=generator)
    wanted = loaded.sampler.step(x, e, 2, z).var()
    share = noise_share(loaded, 2, 0.01)
    found = loaded.sampler.step(x, e + 0.1 * noise, 2, share * z).var()
    unabsorbed = loaded.sampler.step(x, e + 0.1 * noise, 2, z).var()
    assert 0 < share < 0.99
    assert float(wanted) == pytest.approx(float(found), rel=0.02)
    assert unabsorbed > 1.02 * wanted


def test_more_than_the_sampler_adds_cannot_be_absorbed():
    """Then it adds nothing, and never a negative amount."""
    loaded = load_tiny(steps=STEPS, sampler=STOCHASTIC)
    assert 0.0 == noise_share(loaded, 1, 1e6)
    assert 1.0 == noise_share(loaded, 1, 0.0)


@pytest.mark.parametrize(("sampler", "step"), [("ddim", 1), (STOCHASTIC, STEPS - 1)])
def test_where_no_noise_is_added_nothing_is_absorbed(sampler, step):
    """A deterministic sampler, and the last step of a stochastic one."""
    assert 1.0 == noise_share(load_tiny(steps=STEPS, sampler=sampler), step, 0.5)
