"""Which parts of a layer's input have parameters of their own, and what they are called."""

from dataclasses import replace

from torch import nn

from tfq_bench.quant.layers import input_parts, part_name
from tfq_bench.types import Layer

SHORTCUT = Layer(
    name="a.shortcut",
    kind="conv2d",
    role="shortcut",
    block="a",
    weight_shape=(8, 12, 1, 1),
    macs=96,
    split=4,
)


def test_both_halves_of_a_concatenation_before_a_shortcut_are_parts():
    """When a split is asked for, and of no other layer."""
    conv = nn.Conv2d(12, 8, 1)
    assert ((0, 4), (4, 12)) == input_parts(SHORTCUT, conv, split=True)
    assert ((0, 12),) == input_parts(SHORTCUT, conv, split=False)
    assert ((0, 12),) == input_parts(replace(SHORTCUT, role="conv"), conv, split=True)
    assert ((0, 12),) == input_parts(replace(SHORTCUT, split=None), conv, split=True)


def test_a_grouped_convolution_stays_whole():
    """For every quantizer: its weight `(C_out, C_in/groups, 1, 1)` has no halves."""
    layer = replace(SHORTCUT, weight_shape=(8, 6, 1, 1))
    assert ((0, 12),) == input_parts(layer, nn.Conv2d(12, 8, 1, groups=2), split=True)


def test_a_part_is_called_by_its_channels():
    """A whole layer has the layer's name."""
    assert part_name("a.shortcut", (4, 12), 2) == "a.shortcut[4:12]"
    assert part_name("a.shortcut", (0, 12), 1) == "a.shortcut"
