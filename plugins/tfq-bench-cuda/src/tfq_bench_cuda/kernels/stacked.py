"""Linear layers of one shape and few rows, each with weights and tables of its own: one kernel.

What a timestep does to the blocks of a transformer is such layers: 28 products of 2 rows by 6,912
outputs take as long as their launches, not as their weights. CUDA tensors run a Triton kernel, all
others the same arithmetic in plain torch, `stacked_reference`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tfq_bench.api import LoweringError
from tfq_bench_cuda.kernels.stacked_reference import Stack, stacked_reference
from tfq_bench_cuda.kernels.unpack import expand_reference, pack

__all__ = ["Stack", "check_stacked", "stacked_linear"]


def stacked_linear(
    x: Tensor, stack: Stack, step: Tensor, *, silu: bool, out: torch.dtype, pieces: int = 1
) -> Tensor:
    """`[L, pieces, M, n / pieces]` in the type `out`: every layer of its own input.

    Args:
        x: `[L, M, channels]`, or `[1, M, channels]` that all layers read; contiguous.
        step: int64 `[1]`, the sampler step; a table's last entry stands for all later ones.
        silu: whether a SiLU precedes the quantization.
        pieces: in which the outputs are cut: shift, scale and gate of a norm are three.

    Raises:
        ValueError: a shape or layout that the kernel does not take.
    """
    layers, n = stack.sums.shape
    if (
        x.dim() != 3
        or x.shape[0] not in (1, layers)
        or x.shape[2] != stack.channels
        or not x.is_contiguous()
        or n % pieces
    ):
        raise ValueError(
            f"stacked_linear: expected contiguous [1 or {layers}, M, {stack.channels}] and "
            f"{n} outputs in whole pieces, found {list(x.shape)}, strides {x.stride()}, {pieces}"
        )
    if not x.is_cuda:
        return stacked_reference(x, stack, step, silu=silu, out=out, pieces=pieces)
    from tfq_bench_cuda.kernels.stacked_program import launch

    with torch.cuda.device_of(x):
        return launch(x, stack, step, silu=silu, out=out, pieces=pieces)


def check_stacked(
    stack: Stack, dtype: torch.dtype, *, shared: bool, silu: bool, out: torch.dtype, pieces: int
) -> None:
    """Nothing when the kernel of such a stack is exact on its device: against `stacked_reference`.

    Two layers with random and with the largest products, codes of every value, zero points 0, 100
    and the last. Inputs are 0 or so large that SiLU leaves them as they are.

    Args:
        dtype: of the input. shared: whether all layers read one.
        silu, out, pieces: as it will be called.

    Raises:
        LoweringError: it is not.
    """
    device, (n, k), top = stack.sums.device, (stack.sums.shape[1], stack.k), 2**stack.bits - 1
    generator = torch.Generator(device).manual_seed(0)
    low, high = (0, 256) if stack.packed else (-128, 128)
    drawn = {"generator": generator, "device": device}
    shape = (2, n, stack.weight.shape[2])
    x = torch.randint(20, 257, (1 if shared else 2, 18, stack.channels), **drawn)
    x = (x * torch.randint(0, 4, x.shape, **drawn).clamp(max=1)).to(dtype)
    for worst in (False, True):
        weight = torch.randint(low, high, shape, **drawn).to(stack.weight.dtype)
        if worst:
            weight.fill_(0x88 if stack.packed else -128)
        wide = expand_reference(weight.flatten(0, 1)).view(2, n, k) if stack.packed else weight
        wide[:, :, stack.channels :] = 0
        trial = replace(
            stack,
            weight=pack(wide.flatten(0, 1)).view(shape) if stack.packed else wide,
            sums=wide.sum(2, dtype=torch.int32),
            weight_scale=torch.full((2, n), 2.0**-12, device=device),
            bias=torch.ones((2, n), device=device),
            scale=torch.ones((2, 3), device=device),
            inverse=torch.ones((2, 3), device=device),
            zero_point=torch.tensor([[0, min(100, top), top]] * 2, device=device).int(),
        )
        for step in torch.arange(3, device=device).split(1):
            way = {"silu": silu, "out": out, "pieces": pieces}
            found = stacked_linear(x, trial, step, **way)
            if not torch.equal(found, stacked_reference(x, trial, step, **way)):
                raise LoweringError(
                    f"stacked linear layers of {n} by {k}: the kernel is not exact on this "
                    "machine. Set the backend's option 'blocks' to false, and report card, driver "
                    "and Triton version."
                )
