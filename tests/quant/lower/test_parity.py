"""Parity is zero for equal networks and grows with the difference."""

import pytest
import torch
from torch import nn

from tfq_bench.errors import LoweringError
from tfq_bench.quant.lower.parity import network_parity
from tfq_bench.quant.lower.simulate import simulate


def test_network_equals_itself_and_differs_from_another(loaded, round_to_nearest):
    """Two simulations of one state agree exactly; another state's does not."""
    state = round_to_nearest(8, 8)
    one, two = simulate(loaded, state), simulate(loaded, state)
    same = network_parity(loaded, one, two)
    assert (same.max_abs, same.rms, same.relative) == (0.0, 0.0, 0.0)
    different = network_parity(loaded, one, simulate(loaded, round_to_nearest(4, 8)))
    assert different.max_abs > different.rms > 0
    assert different.relative > 0.01


def test_steps_between_can_differ(loaded, round_to_nearest):
    """Both cursors are moved: only the asked steps are compared."""
    state = round_to_nearest(8, 8)
    one, two = simulate(loaded, state), simulate(loaded, state)
    network_parity(loaded, one, two, steps=[1, 4])
    assert [4] == one.step.index.tolist() == two.step.index.tolist()


def test_differences_are_told_in_numbers(loaded):
    """Of an output that is 1 off everywhere: largest, mean, and relative to the output."""
    one, two = (simulate(loaded, None) for _ in range(2))
    for network, value in ((one, 2.0), (two, 3.0)):
        nn.init.zeros_(network.network.conv_out.weight)
        nn.init.constant_(network.network.conv_out.bias, value)
    parity = network_parity(loaded, one, two)
    assert (parity.max_abs, parity.rms, parity.relative) == (1.0, 1.0, 0.5)


def test_broken_predictions_are_lowering_errors(loaded):
    """Another shape, or values that are not finite, never count as close."""
    one, two = (simulate(loaded, None) for _ in range(2))
    two.network.register_forward_hook(lambda *call: call[-1][:, :2])
    with pytest.raises(LoweringError, match="the simulation gives shape"):
        network_parity(loaded, one, two)
    one, two = (simulate(loaded, None) for _ in range(2))
    nn.init.constant_(two.network.conv_out.bias, torch.nan)
    with pytest.raises(LoweringError, match="not finite"):
        network_parity(loaded, one, two)
