"""The oneDNN operators against int64 arithmetic, on the inputs that are easy to get wrong."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tfq_bench_cpu import kernels, onednn
from tfq_bench_cpu.forms import Form
from tfq_bench_cpu.kernels import Epilogue

ONE_BY_ONE = onednn.Geometry(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)


def codes(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Random uint8 codes."""
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def weights(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Random int8 weights."""
    return torch.randint(-128, 128, shape, generator=generator, dtype=torch.int8)


@pytest.fixture
def generator() -> torch.Generator:
    """The same numbers in every test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=["as this machine needs it", "without VNNI", "in halves"], autouse=True)
def form(request, monkeypatch):
    """Every test also with the forms that machines without VNNI need: exact everywhere."""
    if request.param == "without VNNI":
        monkeypatch.setattr(kernels, "saturates", lambda: True)
    if request.param == "in halves":
        monkeypatch.setattr(kernels, "possible_forms", lambda _: iter([Form.HALVES]))


@pytest.mark.parametrize("epilogue", Epilogue)
@pytest.mark.parametrize("zero_point", [0, 37, 255])
@pytest.mark.parametrize(
    ("channels", "kernel", "geometry"),
    [
        ((24, 40), 1, ONE_BY_ONE),
        ((24, 40), 3, onednn.Geometry(stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1)),
        ((24, 40), 3, onednn.Geometry(stride=(2, 2), padding=(1, 1), dilation=(1, 1), groups=1)),
        ((24, 40), 3, onednn.Geometry(stride=(1, 1), padding=(2, 2), dilation=(2, 2), groups=1)),
        ((32, 32), 3, onednn.Geometry(stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=4)),
        ((3, 8), 3, onednn.Geometry(stride=(1, 2), padding=(1, 0), dilation=(1, 1), groups=1)),
    ],
)
def test_convolution_sums_are_those_of_integers(
    generator, channels, kernel, geometry, zero_point, epilogue
):
    """Every sum equals int64 arithmetic, also where zero padding meets a zero point."""
    inside, outside = channels
    code = codes(generator, 2, inside, 9, 9)
    weight = weights(generator, outside, inside // geometry.groups, kernel, kernel)
    expected = F.conv2d(
        (code.long() - zero_point).double(),
        weight.double(),
        None,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        geometry.groups,
    )
    packed = kernels.pack_conv2d(weight, geometry, epilogue=epilogue)
    found = kernels.conv2d(code, 1.0, zero_point, packed, torch.ones(outside), None, geometry)
    assert expected.tolist() == found.double().tolist()


@pytest.mark.parametrize("zero_point", [0, 37, 255])
@pytest.mark.parametrize("shape", [(5, 48), (2, 7, 48), (1, 48)])
def test_linear_sums_are_those_of_integers(generator, shape, zero_point):
    """Every sum equals int64 arithmetic, for 2-D and 3-D inputs."""
    code, weight = codes(generator, *shape), weights(generator, 17, 48)
    expected = (code.long() - zero_point) @ weight.long().T
    found = kernels.linear(code, 1.0, zero_point, kernels.pack_linear(weight), torch.ones(17), None)
    assert expected.tolist() == found.long().tolist()


@pytest.mark.parametrize("kind", ["conv2d", "linear"])
def test_sums_beyond_float32_integers_are_exact_and_rounded_once(generator, kind):
    """2,304 products reach 4.4 times 2^24: the int32 sum is exact, its float32 the nearest one."""
    code = 255 - codes(generator, 5, 2304) % 16
    weight = 127 - weights(generator, 17, 2304).abs() % 16
    sums = code.long() @ weight.long().T
    assert sums.min() > 3.5 * 2**24
    if kind == "linear":
        found = kernels.linear(code, 1.0, 0, kernels.pack_linear(weight), torch.ones(17), None)
    else:
        packed = kernels.pack_conv2d(weight[..., None, None], ONE_BY_ONE)
        code = code[..., None, None]
        found = kernels.conv2d(code, 1.0, 0, packed, torch.ones(17), None, ONE_BY_ONE).flatten(1)
    assert torch.equal(sums.float(), found)


@pytest.mark.parametrize("epilogue", Epilogue)
def test_scales_and_bias_are_applied_in_float32(generator, epilogue):
    """Scale * channel scale * sum + bias, to float32 accuracy, in both kernels."""
    code, weight = codes(generator, 5, 48), weights(generator, 17, 48)
    scale, bias = torch.rand(17, generator=generator), torch.randn(17, generator=generator)
    sums = (code.long() - 90) @ weight.long().T
    expected = 0.03 * scale.double() * sums + bias
    if epilogue is not Epilogue.NONE:
        packed = kernels.pack_linear(weight, epilogue=epilogue)
        found = kernels.linear(code, 0.03, 90, packed, scale, bias)
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-4)
    packed = kernels.pack_conv2d(weight[..., None, None], ONE_BY_ONE, epilogue=epilogue)
    found = kernels.conv2d(code[..., None, None], 0.03, 90, packed, scale, bias, ONE_BY_ONE)
    torch.testing.assert_close(found.flatten(1).double(), expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("kind", ["conv2d", "linear"])
@pytest.mark.parametrize("weight", [127, -128, 65, -65, 64, -64])
def test_the_worst_sums_are_exact(kind, weight):
    """All codes 255, all weights the same: where pairs of products are largest."""
    code = torch.full((1, 96), 255, dtype=torch.uint8)
    weights = torch.full((4, 96), weight, dtype=torch.int8)
    if kind == "linear":
        found = kernels.linear(code, 1.0, 0, kernels.pack_linear(weights), torch.ones(4), None)
    else:
        packed = kernels.pack_conv2d(weights[..., None, None], ONE_BY_ONE)
        found = kernels.conv2d(
            code[..., None, None], 1.0, 0, packed, torch.ones(4), None, ONE_BY_ONE
        ).flatten(1)
    assert [[96 * 255 * weight] * 4] == found.tolist()
