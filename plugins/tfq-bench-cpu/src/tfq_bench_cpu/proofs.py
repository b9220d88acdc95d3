"""Whether a layer's kernel gives the bits of exact arithmetic, tried on its own worst inputs.

Each layer is tried before it is used, with its own weights, stride, padding, groups, zero points
and scales, in a small batch and alone. Of the outputs whose weights add up to most, every input of
positive weights is 255 and every other 0, then the other way round. No codes make a pair of
products larger, whichever inputs a kernel pairs, and what is lost is lost in one direction: when
these sums are right, those of all codes are. Between such windows and at the borders codes are
random. What is expected is computed in float64, where all of these sums are exact.

Float32 holds integers up to 2^24. Where a layer's sums can be larger, kernels for AMX round the sum
of the products and what the zero point takes off each for itself, so that a result is off by the
last bits of a float32. That is allowed there, on machines that saturate nowhere, and while twice as
much is less than what a saturated pair of products would lose. Below 2^24 nothing is.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tfq_bench_cpu import kernels
from tfq_bench_cpu.forms import Form
from tfq_bench_cpu.kernels import Epilogue, Packed
from tfq_bench_cpu.onednn import Geometry

__all__ = ["prove_conv2d", "prove_linear"]

OUTPUTS = 16
"""Output channels that are compared at least, where there are as many."""

WEIGHTS = 2**14
"""Of small layers more outputs are compared, of up to as many weights: mostly all of them."""

LARGEST_SIDE = 16
"""Of an output image, in pixels; larger ones are tried at this size."""

BUDGET = 2**30
"""Products of an image; layers of many weights are tried on a smaller one."""

LARGEST_INTEGER = 2**24
"""Up to which float32 holds every integer."""

ROUNDINGS = 4
"""To float32, of sums beyond that: products, zero point's part, difference, and the expected sum.
Two more are allowed to the result, for its scales and its bias."""

SATURATED = 127
"""The least that a pair of products of 255 loses where its weights add up to more than 128."""

_POINT = Geometry(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)

Parameters = tuple[float, int]
"""A scale and its zero point."""

Answer = tuple[Tensor, Tensor]
"""What is expected, float32, and how far off it may be, float64."""


def prove_conv2d(
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    parameters: list[Parameters],
    pixels: int,
) -> Packed | None:
    """The fastest packed weights for `kernels.conv2d` that are exact, None when there are none.

    Args:
        weight: int8 `[C_out, C_in/groups, kh, kw]`.
        weight_scale, bias: float32 `[C_out]`.
        parameters: scale and zero point of every sampler step.
        pixels: outputs per image and channel.
    """
    code, outputs = worst_codes(weight, geometry, _side(weight, pixels))
    epilogues = [Epilogue.ALL, Epilogue.SCALE]
    if weight[0, 0].numel() > 1 and kernels.sums_fit_float32(weight):
        epilogues.insert(1, Epilogue.NONE)  # a point's products are too few to pay for its passes
    pack = functools.partial(kernels.pack_conv2d, weight, geometry)

    def run(codes: Tensor, scale: float, zero_point: int, packed: Packed) -> Tensor:
        y = kernels.conv2d(codes, scale, zero_point, packed, weight_scale, bias, geometry)
        return y[:, outputs]

    def expected(scale: float, zero_point: int) -> Answer:
        sums = exact_sums(code, zero_point, weight, outputs, geometry)
        y = _scaled(sums, scale, weight_scale[outputs], bias, outputs, (-1, 1, 1))
        return y, _allowed(y, weight, scale * weight_scale, outputs, (-1, 1, 1))

    return _first_exact(_candidates(weight, epilogues), pack, run, expected, code, parameters)


def prove_linear(
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    parameters: list[Parameters],
    rows: int,
) -> Packed | None:
    """The fastest packed weights for `kernels.linear` that are exact, None when there are none.

    Args:
        weight: int8 `[C_out, C_in]`.
        rows: of an image's input; others as for `prove_conv2d`.
    """
    as_conv = weight[..., None, None]
    image, outputs = worst_codes(as_conv, _POINT, _side(weight, rows))
    code = image.permute(0, 2, 3, 1).flatten(1, 2)
    pack = functools.partial(kernels.pack_linear, weight)

    def run(codes: Tensor, scale: float, zero_point: int, packed: Packed) -> Tensor:
        return kernels.linear(codes, scale, zero_point, packed, weight_scale, bias)[..., outputs]

    def expected(scale: float, zero_point: int) -> Answer:
        sums = exact_sums(image, zero_point, as_conv, outputs, _POINT)
        rows = sums.permute(0, 2, 3, 1).flatten(1, 2)
        y = _scaled(rows, scale, weight_scale[outputs], bias, outputs, (-1,))
        return y, _allowed(y, weight, scale * weight_scale, outputs, (-1,))

    epilogues = [Epilogue.ALL, Epilogue.SCALE]
    return _first_exact(_candidates(weight, epilogues), pack, run, expected, code, parameters)


def worst_codes(weight: Tensor, geometry: Geometry, side: int) -> tuple[Tensor, Tensor]:
    """uint8 `[B, C_in, H, W]`, channels last, and the int64 output channels they are worst for.

    Args:
        weight: int8 `[C_out, C_in/groups, kh, kw]`.
        side: of the output image, which is larger where no whole window fits in.
    """
    outputs = _largest(weight)
    full = _ungrouped(weight, outputs, geometry.groups)
    patterns = torch.cat([full > 0, full < 0]).flatten(1).float() * 255
    rows, columns = (_axis(weight, geometry, side, axis) for axis in (0, 1))
    batch = max(2, -(-len(patterns) // (rows.windows * columns.windows)))
    count = batch * rows.windows * columns.windows
    chosen = patterns[torch.arange(count) % len(patterns)].unflatten(0, (batch, -1))

    def planted(windows: Tensor) -> Tensor:
        """`[B, windows, C_in kh kw]` side by side, and nothing before the first."""
        image = F.fold(
            windows.transpose(1, 2),
            output_size=(rows.length - rows.begin, columns.length - columns.begin),
            kernel_size=(weight.shape[2], weight.shape[3]),
            dilation=geometry.dilation,
            stride=(rows.step, columns.step),
        )
        return F.pad(image, (columns.begin, 0, rows.begin, 0))

    worst = planted(chosen)
    random = torch.randint(0, 256, worst.shape, generator=torch.Generator().manual_seed(0))
    code = torch.where(planted(torch.ones_like(chosen)) > 0, worst.long(), random)
    return code.to(torch.uint8, memory_format=torch.channels_last), outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """How windows that do not overlap lie along one axis of an image without its padding.

    Args:
        length: of the image, in pixels.
        begin: where the first window begins that an output sees whole.
        step: from one window to the next.
        windows: how many there are.
    """

    length: int
    begin: int
    step: int
    windows: int


def _axis(weight: Tensor, geometry: Geometry, side: int, axis: int) -> _Axis:
    stride, padding = geometry.stride[axis], geometry.padding[axis]
    extent = (weight.shape[2 + axis] - 1) * geometry.dilation[axis] + 1
    begin = -(-padding // stride) * stride - padding
    length = max((side - 1) * stride + extent - 2 * padding, begin + extent)
    step = -(-extent // stride) * stride
    return _Axis(
        length=length, begin=begin, step=step, windows=(length - begin - extent) // step + 1
    )


def exact_sums(
    code: Tensor, zero_point: int, weight: Tensor, outputs: Tensor, geometry: Geometry
) -> Tensor:
    """Float64 `[B, len(outputs), H', W']`, sums of codes less their zero point and weights."""
    full = _ungrouped(weight, outputs, geometry.groups).double()
    centred = code.double() - zero_point
    return F.conv2d(centred, full, None, geometry.stride, geometry.padding, geometry.dilation)


def _candidates(weight: Tensor, epilogues: list[Epilogue]) -> Iterator[tuple[Form, Epilogue]]:
    return itertools.product(kernels.possible_forms(weight), epilogues)


def _first_exact(
    candidates: Iterator[tuple[Form, Epilogue]],
    pack: Callable[[Form, Epilogue, Packed | None], Packed],
    run: Callable[[Tensor, float, int, Packed], Tensor],
    expected: Callable[[float, int], Answer],
    code: Tensor,
    parameters: list[Parameters],
) -> Packed | None:
    """The first packed weights whose results are the expected ones."""
    by_zero_point = sorted(parameters, key=lambda pair: pair[1])
    asked = list(dict.fromkeys([by_zero_point[0], by_zero_point[-1]]))
    answers = [expected(*pair) for pair in asked]
    packed: Packed | None = None
    for form, epilogue in candidates:
        packed = pack(form, epilogue, packed)
        exact = all(
            _agree(answer, run(code, *pair, packed))
            for pair, answer in zip(asked, answers, strict=True)
        )
        alone = answers[0][0][:1], answers[0][1][:1]
        if exact and _agree(alone, run(code[:1], *asked[0], packed)):
            return packed
    return None


def _agree(answer: Answer, found: Tensor) -> bool:
    expected, allowed = answer
    return bool(((found.double() - expected.double()).abs() <= allowed).all())


def _allowed(
    y: Tensor, weight: Tensor, scale: Tensor, outputs: Tensor, wide: tuple[int, ...]
) -> Tensor:
    """How far off each result may be: 0 where float32 holds every sum of its output."""
    flat = weight[outputs].flatten(1).double()
    largest = 255 * torch.maximum(flat.clamp(min=0).sum(1), flat.clamp(max=0).sum(1).neg())
    off = (ROUNDINGS + 2) / LARGEST_INTEGER * largest
    rounds = (largest > LARGEST_INTEGER) & (2 * off < SATURATED)
    if kernels.saturates():
        rounds = torch.zeros_like(rounds)
    slack = torch.where(rounds, ROUNDINGS / LARGEST_INTEGER * largest, 0.0)
    slack = slack * scale[outputs].double()
    last_bit = torch.where(rounds, 2 / LARGEST_INTEGER, 0.0)
    return slack.reshape(wide) + last_bit.reshape(wide) * y.double().abs()


def _side(weight: Tensor, outputs: int) -> int:
    """Of the image that a layer is tried on, whose own has so many outputs per channel."""
    affordable = math.isqrt(BUDGET // weight.numel())
    return max(1, min(math.isqrt(outputs), LARGEST_SIDE, affordable))


def _scaled(
    sums: Tensor,
    scale: float,
    weight_scale: Tensor,
    bias: Tensor | None,
    outputs: Tensor,
    wide: tuple[int, ...],
) -> Tensor:
    """What the simulation makes of exact sums, float32."""
    y = sums.float().mul_(scale).mul_(weight_scale.reshape(wide))
    return y if bias is None else y.add_(bias[outputs].reshape(wide))


def _largest(weight: Tensor) -> Tensor:
    """Output channels with the largest sums of positive, and of negative weights."""
    flat = weight.flatten(1).float()  # exact: an int32 sum of products has at most 65,793 terms
    count = min(max(OUTPUTS, WEIGHTS // flat.shape[1]) // 2, len(flat))
    positive = flat.clamp(min=0).sum(1).topk(count).indices
    negative = flat.clamp(max=0).sum(1).neg().topk(count).indices
    return torch.tensor(sorted({*positive.tolist(), *negative.tolist()}))


def _ungrouped(weight: Tensor, outputs: Tensor, groups: int) -> Tensor:
    """Int16 `[len(outputs), C_in, kh, kw]`: zero at the inputs of other groups."""
    inner = weight.shape[1]
    full = torch.zeros(len(outputs), groups, *weight.shape[1:], dtype=torch.int16)
    full[torch.arange(len(outputs)), outputs // (len(weight) // groups)] = weight[outputs].to(
        torch.int16
    )
    return full.view(len(outputs), groups * inner, *weight.shape[2:])
