"""Randomness depends on seed, purpose and index, and on nothing else."""

import itertools

import pytest
import torch

from tfq_bench.seeds import derive, generator, noise

SHAPE = (3, 8, 8)


def test_derived_seeds_are_fixed():
    """A seed is a SHA-256 of its three parts: another one would change every published image."""
    assert 7588886138009786470 == derive(0, "sampling", 5)


def test_derived_seeds_fit_torch():
    """A seed has 63 bits."""
    assert all(0 <= derive(seed, "p", index) < 2**63 for seed in (0, 2**80) for index in range(50))


def test_different_parts_give_different_streams():
    """No two of many neighbouring (seed, purpose, index) share a stream."""
    parts = list(itertools.product(range(3), ("a", "a/1", "1", "sampling"), range(20)))
    assert len(parts) == len({generator(*part).initial_seed() for part in parts})


def test_equal_parts_give_equal_streams():
    """A generator starts anew each time that it is asked for."""
    first, second = (torch.randn(9, generator=generator(3, "p", 7)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("batch", [[[4], [5], [6], [7]], [[4, 5], [6, 7]], [[7, 6], [5, 4]]])
def test_noise_does_not_depend_on_batches(batch):
    """An image's noise is the same alone, with others and in any order."""
    whole = noise(1, "sampling", range(8), SHAPE, device="cpu")
    assert (8, *SHAPE) == tuple(whole.shape)
    for indices in batch:
        assert torch.equal(whole[indices], noise(1, "sampling", indices, SHAPE, device="cpu"))


def test_noise_is_standard_normal_across_images():
    """Images are as different from each other as normal numbers are."""
    x = noise(1, "sampling", range(64), SHAPE, device="cpu").flatten(1)
    assert 0.03 > x.mean().abs()
    assert 0.03 > (x.std() - 1).abs()
    assert 0.4 > (torch.corrcoef(x) - torch.eye(64)).abs().max()


def test_noise_leaves_torch_alone_and_is_left_alone():
    """Torch's global seed and default type neither change nor matter."""
    expected = noise(1, "sampling", [0], SHAPE, device="cpu")
    before = torch.random.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        found = noise(1, "sampling", [0], SHAPE, device="cpu")
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.float32 == found.dtype
    assert torch.equal(expected, found)
    assert torch.equal(before, torch.random.get_rng_state())
