"""The calls that compute one shape: the int8 kernel, cuDNN or cuBLAS in BF16, cuBLAS in fp8."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from gpu.shapes import Shape
from tfq_bench_cuda.kernels.borders import border_sums, positions
from tfq_bench_cuda.kernels.operands import Additions, Factors
from tfq_bench_cuda.kernels.specs import ConvSpec, LinearSpec, ProductSpec, padded
from tfq_bench_cuda.kernels.tiles import TileChoice, candidates

SCALE, ZERO_POINT = 0.02, 100
"""Of the codes; any will do for timing."""


def specs_of(shape: Shape, arch: str, gathers: bool, tiles: int) -> list[ProductSpec]:
    """The kernel of a shape with the tile that the backend chooses first, and others after it."""
    halved = 2 if shape.ending.activation == "geglu" else 1
    outputs = shape.n // halved
    depth = padded(_channels(shape))
    taps = 1 if shape.geometry is None else math.prod(shape.geometry.kernel)
    chosen = TileChoice(arch=arch, rows=shape.rows)(outputs, depth, shape.ending, taps=taps)
    others = candidates(shape.rows, outputs, depth, arch, taps=taps, accumulators=halved)
    made: list[ProductSpec] = []
    for tile in list(dict.fromkeys([chosen, *others]))[:tiles]:
        if shape.geometry is None:
            made.append(LinearSpec(n=outputs, k=depth, ending=shape.ending, tile=tile))
            continue
        gather = gathers or not shape.geometry.centred
        made.append(
            ConvSpec(
                n=outputs,
                c=depth,
                geometry=shape.geometry,
                gather=gather,
                ending=shape.ending,
                tile=tile,
            )
        )
    return made


def int8_calls(kernels: Any, shape: Shape, specs: list[ProductSpec], device: str = "cuda"):
    """A call of each spec by its tile's name, all of the same random numbers."""
    depth = padded(_channels(shape))
    places = None
    if shape.geometry is None:
        weight = torch.randint(-128, 128, (shape.n, depth), device=device).to(torch.int8)
        code = torch.randint(-128, 128, (shape.rows, depth), device=device).to(torch.int8)
        sums = weight.sum(1, dtype=torch.int32)
    else:
        assert shape.size is not None
        kernel = shape.geometry.kernel
        taps = kernel[0] * kernel[1]
        weight = torch.randint(-128, 128, (shape.n, taps * depth)).to(torch.int8)
        filters = weight.view(shape.n, *kernel, depth).permute(0, 3, 1, 2)
        sums = border_sums(filters, shape.geometry, shape.size).to(device)
        places = positions(shape.geometry, shape.size).to(device)
        weight = weight.to(device)
        pixels = (shape.images, *shape.size, depth)
        code = torch.randint(-128, 128, pixels, device=device).to(torch.int8)
    step = torch.zeros(1, dtype=torch.int64, device=device)
    scale = torch.full((1,), SCALE, device=device)
    zero_point = torch.full((1,), ZERO_POINT, dtype=torch.int32, device=device)
    factors = Factors(
        weight=weight,
        sums=sums,
        positions=places,
        step=step,
        scale=scale,
        zero_point=zero_point,
        weight_scale=torch.rand(shape.n, device=device) / depth,
        bias=torch.randn(shape.n, device=device),
    )
    additions = _additions(shape, factors, device)
    run = kernels.linear if shape.geometry is None else kernels.conv2d
    return {str(spec.tile): partial(run, spec, code, factors, additions) for spec in specs}


def _additions(shape: Shape, factors: Factors, device: str) -> Additions:
    ending = shape.ending
    outputs = shape.n // 2 if ending.activation == "geglu" else shape.n
    given: dict[str, Any] = {}
    if ending.shift:
        given["shift"] = torch.randn(shape.images, outputs, device=device)
    if ending.residual:
        dtype = getattr(torch, ending.residual)
        given["residual"] = torch.randn(shape.rows, outputs, device=device, dtype=dtype)
    if ending.out == "int8":
        given.update(inverse=factors.scale.reciprocal(), zero_point=factors.zero_point)
    return Additions(**given)


def bf16_call(shape: Shape, device: str = "cuda") -> Callable[[], Any]:
    """A product by cuDNN or cuBLAS, with the bias and nothing else of the ending."""
    like = {"device": device, "dtype": torch.bfloat16}
    bias = torch.randn(shape.n, **like)
    if shape.geometry is None:
        x, w = torch.randn(shape.rows, shape.k, **like), torch.randn(shape.n, shape.k, **like)
        return lambda: F.linear(x, w, bias)
    assert shape.size is not None
    geometry, last = shape.geometry, torch.channels_last
    channels = _channels(shape)
    x = torch.randn(shape.images, channels, *shape.size, **like).to(memory_format=last)
    w = torch.randn(shape.n, channels, *geometry.kernel, **like).to(memory_format=last)
    return lambda: F.conv2d(x, w, bias, geometry.stride, geometry.padding, geometry.dilation)


def fp8_call(shape: Shape, device: str = "cuda") -> Callable[[], Any] | None:
    """A product by cuBLAS in e4m3, a scale for each output; None where it knows none."""
    if shape.geometry is not None or shape.n % 16 or shape.k % 16:
        return None
    eight = torch.float8_e4m3fn
    x = torch.randn(shape.rows, shape.k, device=device).to(eight)
    w = torch.randn(shape.n, shape.k, device=device).to(eight).t()
    # The library knows scales of rows on both sides or on neither.
    rows = torch.full((shape.rows, 1), SCALE, device=device)
    columns = torch.rand(1, shape.n, device=device)
    bias = torch.randn(shape.n, device=device, dtype=torch.bfloat16)
    return lambda: torch._scaled_mm(
        x, w, rows, columns, bias=bias, out_dtype=torch.bfloat16, use_fast_accum=True
    )


def _channels(shape: Shape) -> int:
    """Input channels of one tap."""
    if shape.geometry is None:
        return shape.k
    return shape.k // (shape.geometry.kernel[0] * shape.geometry.kernel[1])
