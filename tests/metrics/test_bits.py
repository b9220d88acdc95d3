"""Bits and bytes of a cell."""

from __future__ import annotations

import pytest
import torch

from tfq_bench.metrics.bits import Bits
from tfq_bench.quant.state.quantized_state import LayerPart, QuantizedLayer, QuantizedState
from tfq_bench.types import Scheme


def _values(inputs) -> dict[str, float]:
    return {value.definition.name: value.value for value in Bits().evaluate(inputs)}


def test_full_precision_has_32_bits_and_4_bytes_a_parameter(make_inputs, tiny):
    """Nothing is packed and nothing is saved."""
    parameters = sum(parameter.numel() for parameter in tiny.network.parameters())
    expected = {"mean-weight-bits": 32.0, "size-bytes": 4.0 * parameters, "fp-weight-share": 1.0}
    assert expected == _values(make_inputs())


def test_one_packed_layer_counts_at_its_true_width(make_inputs, tiny):
    """A 4-bit layer has half a byte a weight, its scales and bias; all others stay float."""
    channels, width = 48, 16
    layer = QuantizedLayer(
        name="attention.qkv",
        kind="linear",
        wbits=4,
        parts=(
            LayerPart(
                start=0,
                stop=width,
                weight=torch.zeros((channels, width), dtype=torch.uint8),
                scale=torch.ones(channels),
                zero_point=torch.full((channels,), 8, dtype=torch.int32),
            ),
        ),
        bias=torch.zeros(channels),
    )
    state = QuantizedState(
        model=tiny.model.digest,
        method="test",
        scheme=Scheme(wbits=4, abits=32),
        timesteps=tiny.sampler.timesteps,
        layers={layer.name: layer},
        exempt={},
    )
    full, found = _values(make_inputs()), _values(make_inputs(state=state))
    weights = channels * width
    packed = weights / 2 + channels * (4 + 1) + channels * 4
    assert packed == found["packed-bytes"]
    assert full["size-bytes"] - 4 * (weights + channels) + packed == found["size-bytes"]
    total = sum(torch.Size(la.weight_shape).numel() for la in tiny.topology.layers)
    assert pytest.approx(1 - weights / total) == found["fp-weight-share"]
    assert pytest.approx(32 - 28 * weights / total) == found["mean-weight-bits"]


def test_bytes_by_role_sum_to_the_size(make_inputs):
    """The curves of the size account for every byte."""
    size = next(v for v in Bits().evaluate(make_inputs()) if v.definition.name == "size-bytes")
    assert size.value == sum(value for (value,) in size.series.values())
    assert "bytes:attention" in size.series
