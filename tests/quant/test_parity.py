"""Parity is zero for equal networks and grows with the difference."""

import pytest
import torch
from torch import nn

from tfq_bench.errors import LoweringError
from tfq_bench.quant.parity import layer_parities, layer_parity, network_parity
from tfq_bench.quant.simulate import simulate


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


def test_layer_outputs_are_compared_in_numbers(round_to_nearest):
    """A difference of 1 in one of four values of size 2."""
    layer = round_to_nearest(8, 8).layers["conv_in"]
    expected = torch.full((4,), 2.0)
    found = expected + torch.tensor([0.0, 0.0, 0.0, 1.0])
    parity = layer_parity(layer, expected, found)
    assert (parity.max_abs, parity.rms, parity.relative) == (1.0, 0.5, 0.25)


def test_only_the_layer_that_differs_shows(loaded, round_to_nearest):
    """Each layer gets the simulation's input, so one wrong weight does not spread."""
    state = round_to_nearest(8, 8)
    one, two = simulate(loaded, state), simulate(loaded, state)
    two.network.first.conv1.weight_0 += 1
    found = layer_parities(loaded, one, two, step=3)
    assert list(state.layers) == sorted(found, key=list(state.layers).index)
    assert [name for name, parity in found.items() if parity.max_abs > 0] == ["first.conv1"]
    assert not any(module._forward_hooks for module in one.network.modules())


def test_broken_kernels_are_lowering_errors(loaded, round_to_nearest):
    """Another shape, or values that are not finite, never count as close."""
    layer = round_to_nearest(8, 8).layers["conv_in"]
    with pytest.raises(LoweringError, match="conv_in"):
        layer_parity(layer, torch.zeros(2), torch.zeros(3))
    one, two = (simulate(loaded, None) for _ in range(2))
    nn.init.constant_(two.network.conv_out.bias, torch.nan)
    with pytest.raises(LoweringError, match="not finite"):
        network_parity(loaded, one, two)
