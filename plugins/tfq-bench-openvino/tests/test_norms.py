"""Group norm taken apart gives what torch gives, also far from zero."""

from __future__ import annotations

import pytest
import torch

from tfq_bench_openvino.engine import compile_model
from tfq_bench_openvino.norms import decompose_group_norms
from tfq_bench_openvino.runtime import Type, openvino, opset13


@pytest.mark.parametrize("mean", [0.0, 50.0])
def test_group_norm_is_that_of_torch(mean):
    """Each group of each image by its own moments, each channel by its own weight and bias."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 12, 5, 7, generator=generator) + mean
    weight, bias = (torch.randn(12, generator=generator) for _ in range(2))
    given = opset13.parameter([-1, 12, 5, 7], Type.f32)
    y = openvino.opset15.group_normalization(given, weight.numpy(), bias.numpy(), 4, 1e-5)
    model = openvino.Model([y], [given], "norm")
    assert decompose_group_norms(model) == 1
    assert "GroupNormalization" not in {node.get_type_name() for node in model.get_ops()}
    model.reshape(list(x.shape))
    (found,) = compile_model(model)([x])
    expected = torch.nn.functional.group_norm(x.double(), 4, weight.double(), bias.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=2e-5 * (1 + mean))
