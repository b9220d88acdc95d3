"""Each kernel against exact integers, on this machine, before it is used.

The expected values come from `reference`, whose sums are float64 on the same device: a CPU takes
minutes for the layers of a large network. cuDNN is left out, which may multiply by transforms; what
is left adds whole products, and is exact in any order below 2^53, where no sum of int8 products
comes near. There is no bias and all scales are powers of two, so a sum is rounded once to float32,
and what follows it rounds alike on every machine.

An activation does not: `exp`, `erf` and `tanh` differ in their last bits between libraries. Behind
one, floats may differ by a rounding of their type, and codes by 1 where the value before rounding
is within 1e-4 of the border between both.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from tfq_bench.api import LoweringError
from tfq_bench_cuda.kernels.borders import border_sums, positions
from tfq_bench_cuda.kernels.operands import Additions, Factors, asked
from tfq_bench_cuda.kernels.reference import ReferenceKernels, at_step
from tfq_bench_cuda.kernels.specs import ConvSpec, Ending, LinearSpec, ProductSpec, QuantizeSpec

__all__ = ["check"]

_REFERENCE = ReferenceKernels()
_ROWS = 70
"""Rows of a trial: more than the 64 that one instruction multiplies, and no multiple of a tile."""

_IMAGES = {"linear": 5, "conv2d": 2}
"""Among which the rows of a trial are divided."""

_ROUNDING = {"float32": 1e-5, "bfloat16": 2**-7, "float16": 2**-10}
"""How far a result behind an activation may be off, relative and for numbers below 1 absolute."""


def load_libraries(device: torch.device) -> None:
    """Loads what expected numbers are computed with, from a cold disk half a minute."""
    x = torch.zeros((1, 8, 3, 3), dtype=torch.float64, device=device)
    with torch.backends.cudnn.flags(enabled=False):
        torch.nn.functional.conv2d(x, x)
    x.view(8, 9) @ x.view(9, 8)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def check(kernels: Any, spec: ProductSpec | QuantizeSpec, device: torch.device) -> None:
    """Nothing when `spec` is computed exactly.

    Args:
        kernels: `Kernels` or `ReferenceKernels`.

    Raises:
        LoweringError: names the kernel, and the first value that differs.
    """
    # Of the device, which is where weights of 10 million numbers are drawn at once.
    generator = torch.Generator(device).manual_seed(0)
    if isinstance(spec, QuantizeSpec):
        _check_quantize(kernels, spec, device, torch.Generator().manual_seed(0))
    elif isinstance(spec, LinearSpec):
        for worst in (False, True):
            code = _bytes((_ROWS, spec.k), worst, generator)
            weight = _bytes((spec.weights, spec.k), worst, generator)
            sums = weight.sum(1, dtype=torch.int32)
            _check_product(kernels, spec, device, (code, weight, sums))
    else:
        for worst in (False, True):
            _check_conv(kernels, spec, device, worst, generator)


def _check_conv(
    kernels: Any, spec: ConvSpec, device: torch.device, worst: bool, generator: torch.Generator
) -> None:
    # Two images, of another height than width, with every border and at least two inner pixels.
    geometry = spec.geometry
    reach = [d * (k - 1) + 1 for d, k in zip(geometry.dilation, geometry.kernel, strict=True)]
    size = (
        reach[0] + 2 * geometry.stride[0] - geometry.beyond[0],
        reach[1] + 3 * geometry.stride[1] - geometry.beyond[1],
    )
    code = _bytes((2, *size, spec.c), worst, generator)
    taps = _bytes((spec.n, *geometry.kernel, spec.c), worst, generator)
    sums = border_sums(taps.permute(0, 3, 1, 2), geometry, size)
    operands = (code, taps.reshape(spec.n, -1), sums, positions(geometry, size))
    _check_product(kernels, spec, device, operands)


def _check_product(
    kernels: Any,
    spec: ProductSpec,
    device: torch.device,
    operands: tuple[Tensor, ...],
) -> None:
    code, weight, sums, *places = operands
    additions = _additions(spec, _result_rows(spec, code, places), torch.Generator().manual_seed(1))
    what = f"{kernels.name(spec)}, {spec.terms} terms a sum"
    for index in range(3):
        factors = Factors(
            weight=weight,
            sums=sums,
            positions=places[0] if places else None,
            step=torch.tensor([index]),
            scale=torch.ones(3),
            zero_point=torch.tensor([0, 255, 100], dtype=torch.int32),
            weight_scale=torch.full((spec.weights,), _unit(spec)),
            bias=torch.zeros(spec.weights),
        )
        operands = (code.to(device), _moved(factors, device), _moved(additions, device))
        found = getattr(kernels, spec.kind)(spec, *operands).cpu()
        allowed = None
        with torch.backends.cudnn.flags(enabled=False):
            expected = getattr(_REFERENCE, spec.kind)(spec, *operands).cpu()
            if spec.ending.activation:
                floats = replace(spec, ending=replace(spec.ending, out="float32"))
                value = getattr(_REFERENCE, spec.kind)(floats, *operands).cpu()
                allowed = _near(spec.ending, value, found, factors, additions)
        _compare(expected, found, what, allowed)


def _unit(spec: ProductSpec) -> float:
    """The scale of the weights: 1 where a result is a sum, else it brings sums to the order of 1.

    What is added, or an activation, would not be seen beside them.
    """
    if asked(spec.ending) in ([], ["partial"]) and not spec.ending.activation:
        return 1.0
    return 2.0 ** -round(math.log2(8000 * math.sqrt(spec.terms)))


def _additions(spec: ProductSpec, rows: int, generator: torch.Generator) -> Additions:
    """What the ending asks for, floats of the order of 1."""
    ending = spec.ending
    images, all_rows = (_IMAGES[spec.kind], spec.n), (rows, spec.n)
    shapes = {"partial": all_rows, "shift": images, "gate": images, "residual": all_rows}
    values = {
        name: torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
        if name in asked(ending)
    }
    if ending.residual:
        values["residual"] = values["residual"].to(getattr(torch, ending.residual))
    if ending.out == "int8":
        # Most codes are none of the outermost ones.
        values["inverse"] = torch.tensor([1, 1.3, 0.3]) * 2 ** (ending.bits - 3)
        values["zero_point"] = torch.tensor([2 ** (ending.bits - 1), 0, 3], dtype=torch.int32)
    return Additions(**values)


def _near(
    ending: Ending, value: Tensor, found: Tensor, factors: Factors, additions: Additions
) -> Tensor:
    """bool, shape of found: where it differs no more from the float32 `value` than is allowed."""
    if ending.out != "int8":
        far = (found.float() - value).abs()
        return far <= _ROUNDING[ending.out] * value.abs().clamp(min=1)
    assert additions.inverse is not None
    assert additions.zero_point is not None
    scaled = value * at_step(additions.inverse, factors.step)
    ends = [
        (scaled + way * 1e-4)
        .round()
        .add(at_step(additions.zero_point, factors.step))
        .clamp(0, 2**ending.bits - 1)
        for way in (-1, 1)
    ]
    code = found.float() + 128
    return (code >= ends[0]) & (code <= ends[1])


def _result_rows(spec: ProductSpec, code: Tensor, places: list[Tensor]) -> int:
    return len(code) if isinstance(spec, LinearSpec) else len(code) * len(places[0])


_Tensors = TypeVar("_Tensors", Factors, Additions)


def _moved(tensors: _Tensors, device: torch.device) -> _Tensors:
    values = {field.name: getattr(tensors, field.name) for field in fields(tensors)}
    return replace(tensors, **{k: None if v is None else v.to(device) for k, v in values.items()})


def _check_quantize(
    kernels: Any, spec: QuantizeSpec, device: torch.device, generator: torch.Generator
) -> None:
    shape = (2, spec.total, _ROWS) if spec.planes else (_ROWS, spec.total)
    x = torch.randn(shape, generator=generator) * 2**spec.bits
    x.view(-1)[::3] = x.view(-1)[::3].floor() + 0.5  # ties go to the even code
    x = x.to(getattr(torch, spec.dtype))
    inverse, zero_point = torch.tensor([1.0, 0.3]), torch.tensor([2 ** (spec.bits - 1), 0])
    for index in (0, 1):
        arguments = (x, torch.tensor([index]), inverse, zero_point.to(torch.int32))
        expected = _REFERENCE.quantize(spec, *arguments)
        found = kernels.quantize(spec, *(value.to(device) for value in arguments))
        _compare(expected, found.cpu(), f"quantization of {spec.channels} channels")


def _bytes(shape: tuple[int, ...], worst: bool, generator: torch.Generator) -> Tensor:
    if worst:
        return torch.full(shape, -128, dtype=torch.int8, device=generator.device)
    return torch.randint(
        -128, 128, shape, generator=generator, dtype=torch.int8, device=generator.device
    )


def _compare(expected: Tensor, found: Tensor, what: str, allowed: Tensor | None = None) -> None:
    """LoweringError where both differ; bool `allowed` where they may."""
    differs = expected != found
    if allowed is not None:
        differs &= ~allowed
    if not differs.any():
        return
    wrong = differs.nonzero()
    place = tuple(wrong[0].tolist())
    raise LoweringError(
        f"{what}: a kernel is not exact on this machine, {len(wrong)} of {expected.numel()} values "
        f"differ; at {place} expected {expected[place].item()}, found {found[place].item()}. "
        "Use backend 'simulate', and report card, driver and TileLang version."
    )
