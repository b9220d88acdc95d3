"""The selected error is at most the smaller one, at the scope asked for."""

from __future__ import annotations

import pytest
import torch

from tfq_bench_tfmq.selection import disturbance, select_cache

AXES = {"per-step-block": (), "per-block": (0,), "per-step": (1,), "global": (0, 1)}


@pytest.fixture
def errors():
    """Errors `[9, 5]` of block and cache, neither of which wins everywhere."""
    return torch.rand(2, 9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scope", list(AXES))
def test_selection_is_never_worse_than_the_better(errors, scope):
    """Summed over the scope; so also in total."""
    block, cache = errors
    selected = torch.where(select_cache(block, cache, scope), cache, block)
    axes = AXES[scope]
    sums = [e.sum(dim=axes) if axes else e for e in (selected, block, cache)]
    assert bool((sums[0] <= torch.minimum(sums[1], sums[2]) + 1e-12).all())
    assert float(selected.sum()) <= min(float(block.sum()), float(cache.sum())) + 1e-12


@pytest.mark.parametrize(("scope", "choices"), [("per-block", 5), ("per-step", 9), ("global", 1)])
def test_wider_scopes_choose_together(errors, scope, choices):
    """What is selected as one has one choice."""
    chosen = select_cache(*errors, scope)
    assert (9, 5) == tuple(chosen.shape)
    distinct = {"per-block": chosen[:1], "per-step": chosen[:, :1], "global": chosen[:1, :1]}
    assert choices == distinct[scope].numel()
    assert bool((chosen == distinct[scope]).all())


def test_tied_projections_choose_together(errors):
    """By the sum of their errors, at each step; the others as without ties."""
    block, cache = errors
    chosen = select_cache(block, cache, "per-step-block", ties=(0, 1, 0, 3, 0))
    together = cache[:, [0, 2, 4]].sum(dim=1) <= block[:, [0, 2, 4]].sum(dim=1)
    assert all(torch.equal(together, chosen[:, column]) for column in (0, 2, 4))
    alone = select_cache(block, cache, "per-step-block")
    assert torch.equal(alone[:, [1, 3]], chosen[:, [1, 3]])
    assert not torch.equal(alone, chosen)


def test_equal_errors_choose_the_cache():
    """It costs less."""
    zeros = torch.zeros(2, 2)
    assert bool(select_cache(zeros, zeros, "per-step-block").all())


def test_disturbance_is_the_relative_squared_error_or_the_cosines_loss():
    """Twice the feature is as far off as the feature is long, in the same direction."""
    rows = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    relative = disturbance({"a": rows}, {"a": 2 * rows}, "relative")
    assert torch.allclose(torch.ones(3, 1, dtype=torch.float64), relative, rtol=1e-6)
    cosine = disturbance({"a": rows}, {"a": 2 * rows}, "cosine")
    assert float(cosine.abs().max()) < 1e-12
