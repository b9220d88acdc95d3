"""Each kernel against exact integers, on this machine, before it is used.

The expected values come from `reference`, whose sums are float64 on the same device: a CPU takes
minutes for the layers of a large network. cuDNN is left out, which may multiply by transforms; what
is left adds whole products, and is exact in any order below 2^53, where no sum of int8 products
comes near. All scales are 1 and there is no bias, so a result is its sum, rounded once to the
output's type.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from tfq_bench.api import LoweringError
from tfq_bench_cuda.kernels.borders import border_sums, positions
from tfq_bench_cuda.kernels.operands import Additions, Factors
from tfq_bench_cuda.kernels.reference import ReferenceKernels
from tfq_bench_cuda.kernels.specs import ConvSpec, LinearSpec, ProductSpec, QuantizeSpec

__all__ = ["check"]

_REFERENCE = ReferenceKernels()
_ROWS = 70
"""Rows of a trial: more than the 64 that one instruction multiplies, and no multiple of a tile."""


def check(kernels: Any, spec: ProductSpec | QuantizeSpec, device: torch.device) -> None:
    """Nothing when `spec` is computed exactly.

    Args:
        kernels: `Kernels` or `ReferenceKernels`.

    Raises:
        LoweringError: names the kernel, and the first value that differs.
    """
    generator = torch.Generator().manual_seed(0)
    if isinstance(spec, QuantizeSpec):
        _check_quantize(kernels, spec, device, generator)
    elif isinstance(spec, LinearSpec):
        for worst in (False, True):
            code = _bytes((_ROWS, spec.k), worst, generator).to(device)
            weight = _bytes((spec.n, spec.k), worst, generator).to(device)
            sums = weight.sum(1, dtype=torch.int32)
            _check_product(kernels, spec, device, (code, weight, sums), generator)
    else:
        for worst in (False, True):
            _check_conv(kernels, spec, device, worst, generator)


def _check_conv(
    kernels: Any, spec: ConvSpec, device: torch.device, worst: bool, generator: torch.Generator
) -> None:
    # Two images, of another height than width, with every border and at least two inner pixels.
    geometry = spec.geometry
    reach = [d * (k - 1) + 1 for d, k in zip(geometry.dilation, geometry.kernel, strict=True)]
    size = (reach[0] + 2 * geometry.stride[0], reach[1] + 3 * geometry.stride[1])
    code = _bytes((2, *size, spec.c), worst, generator).to(device)
    taps = _bytes((spec.n, *geometry.kernel, spec.c), worst, generator).to(device)
    sums = border_sums(taps.permute(0, 3, 1, 2), geometry, size)
    operands = (code, taps.reshape(spec.n, -1), sums, positions(geometry, size))
    _check_product(kernels, spec, device, operands, generator)


def _check_product(
    kernels: Any,
    spec: ProductSpec,
    device: torch.device,
    operands: tuple[Tensor, ...],
    generator: torch.Generator,
) -> None:
    code, weight, sums, *places = operands
    additions = _additions(spec, _result_rows(spec, code, places), generator)
    call = "linear" if isinstance(spec, LinearSpec) else "conv2d"
    for index in range(3):
        factors = Factors(
            weight=weight,
            sums=sums,
            positions=places[0] if places else None,
            step=torch.tensor([index]),
            scale=torch.ones(3),
            zero_point=torch.tensor([0, 255, 100], dtype=torch.int32),
            weight_scale=torch.ones(spec.weights),
            bias=torch.zeros(spec.weights),
        )
        operands = (spec, code.to(device), _moved(factors, device), _moved(additions, device))
        with torch.backends.cudnn.flags(enabled=False):
            expected = getattr(_REFERENCE, call)(*operands)
        found = getattr(kernels, call)(*operands)
        _compare(expected.cpu(), found.cpu(), f"{kernels.name(spec)}, {spec.terms} terms a sum")


def _additions(spec: ProductSpec, rows: int, generator: torch.Generator) -> Additions:
    """What the ending asks for: whole numbers, which float32 adds exactly."""
    shape = (rows, spec.n)
    if not spec.ending.partial:
        return Additions()
    return Additions(partial=torch.randint(-99, 99, shape, generator=generator).float())


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
        return torch.full(shape, -128, dtype=torch.int8)
    return torch.randint(-128, 128, shape, generator=generator, dtype=torch.int8)


def _compare(expected: Tensor, found: Tensor, what: str) -> None:
    if torch.equal(expected, found):
        return
    wrong = (expected != found).nonzero()
    place = tuple(wrong[0].tolist())
    raise LoweringError(
        f"{what}: a kernel is not exact on this machine, {len(wrong)} of {expected.numel()} values "
        f"differ; at {place} expected {expected[place].item()}, found {found[place].item()}. "
        "Use backend 'simulate', and report card, driver and TileLang version."
    )
