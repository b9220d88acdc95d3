"""Quantized products inside attention: queries, keys, values and the attention weights.

It works on modules that are built like diffusers' `Attention`: linear layers `to_q`, `to_k`,
`to_v` and `to_out`, and a processor that can be exchanged. Nothing here imports diffusers. The
products themselves run in float32 on values that are rounded to their codes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tfq_bench.errors import LoweringError
from tfq_bench.quant.calibrate.observers import (
    InputRanges,
    RangeMethod,
    observation_order,
    observe_inputs,
)
from tfq_bench.quant.state.affine import affine_from_range, fake_quantize, select_step
from tfq_bench.quant.state.qparams import ActivationQParams, AttentionQParams
from tfq_bench.types.networks import KernelUse

if TYPE_CHECKING:
    from tfq_bench.quant.policy import AttentionBits
    from tfq_bench.types import CalibrationData
    from tfq_bench.types.networks import LoadedModel, StepCursor
    from tfq_bench.types.tasks import Progress

__all__ = [
    "ATTENTION_KERNEL",
    "AttentionProcessor",
    "calibrate_attention",
    "is_attention",
    "quantize_attention",
]

ATTENTION_KERNEL = "fp32 attention on dequantized values"
FALLBACK = "attention matmuls run in float on quantized values"

_POINTS = ("q", "k", "v", "softmax")
_PARTS = ("to_q", "to_k", "to_v", "to_out", "heads", "scale", "processor", "set_processor")
_STANDARD = ("AttnProcessor", "AttnProcessor2_0", "XFormersAttnProcessor")

_log = logging.getLogger("tfq_bench.quant")

Point = Callable[[str, Tensor], Tensor]
"""Called with `q`, `k`, `v` or `softmax` and its value `[B, heads, ., .]`; gives what is used."""


def is_attention(module: nn.Module) -> bool:
    """Whether `AttentionProcessor` computes what the module does.

    That holds for the module's standard processors, which differ in speed only, unless it has
    further projections of its own for a second stream of tokens.
    """
    return (
        all(hasattr(module, part) for part in _PARTS)
        and getattr(module, "add_k_proj", None) is None
        and type(module.processor).__name__ in _STANDARD
    )


class AttentionProcessor:
    """A processor, in diffusers' sense, that passes four values through `point`.

    No `nn.Module`, so that a network with it has the same modules as before.
    """

    def __init__(self, point: Point) -> None:
        self._point = point

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """The attention's output, shaped like `hidden_states` (`[B, N, C]` or `[B, C, H, W]`)."""
        x = hidden_states
        if getattr(attn, "spatial_norm", None) is not None:
            x = attn.spatial_norm(x, temb)
        image = x.shape if x.dim() == 4 else None
        if image is not None:
            x = x.flatten(2).transpose(1, 2)
        if getattr(attn, "group_norm", None) is not None:
            x = attn.group_norm(x.transpose(1, 2)).transpose(1, 2)
        context = x if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and getattr(attn, "norm_cross", None):
            context = attn.norm_encoder_hidden_states(context)
        query, key, value = (
            projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projected in (attn.to_q(x), attn.to_k(context), attn.to_v(context))
        )
        if getattr(attn, "norm_q", None) is not None:
            query = attn.norm_q(query)
        if getattr(attn, "norm_k", None) is not None:
            key = attn.norm_k(key)
        query, key, value = (
            self._point(name, part) for name, part in (("q", query), ("k", key), ("v", value))
        )
        scores = query.float() @ key.float().transpose(-1, -2) * attn.scale
        if attention_mask is not None:
            mask = attn.prepare_attention_mask(attention_mask, key.shape[2], len(x))
            scores = scores + mask.reshape(len(x), attn.heads, -1, mask.shape[-1])
        weights = self._point("softmax", scores.softmax(dim=-1))
        mixed = (weights @ value.float()).transpose(1, 2).flatten(2).to(hidden_states.dtype)
        for module in attn.to_out:
            mixed = module(mixed)
        if image is not None:
            mixed = mixed.transpose(1, 2).reshape(image)
        if getattr(attn, "residual_connection", False):
            mixed = mixed + hidden_states
        result: Tensor = mixed / getattr(attn, "rescale_output_factor", 1.0)
        return result


@torch.no_grad()
def calibrate_attention(
    loaded: LoadedModel,
    data: CalibrationData,
    bits: AttentionBits | None,
    *,
    method: RangeMethod = "minmax",
    batch: int = 16,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> dict[str, AttentionQParams]:
    """Static tables of every attention of the topology, from one pass over `data`.

    Nothing is run, and nothing returned, when `bits` is None or the model declares no attention.

    Args:
        bits: see `attention_bits`.
        method: how ranges are found, see `InputRanges`.
        batch: calibration samples per network call.
        generator: CPU; only some methods draw from it.

    Raises:
        CalibrationError: no samples, an attention that never ran, or values that are not finite.
    """
    names = loaded.topology.attention
    if bits is None:
        return {}
    if not names:
        _log.warning("the policy quantizes attention, but the model declares none; it stays float.")
        return {}
    ranges = InputRanges(method, batches=-(-len(data.x) // batch), generator=generator)
    with _observed(loaded.network, names, ranges.update):
        observe_inputs(
            loaded,
            data,
            batch=batch,
            observe=ranges.update,
            layers=(),
            order=observation_order(method, data, generator=generator),
            progress=progress,
        )
    tables = {}
    for name in names:
        found = {}
        for point in _POINTS:
            width = bits.softmax if point == "softmax" else bits.operands
            scale, zero_point = affine_from_range(
                *ranges.range(f"{name}.{point}", width), bits=width
            )
            found[point] = ActivationQParams(
                bits=width, scale=scale.cpu(), zero_point=zero_point.cpu()
            )
        tables[name] = AttentionQParams(name=name, **found)
    return tables


def quantize_attention(
    network: nn.Module, tables: AttentionQParams, step: StepCursor, executed: dict[str, int]
) -> KernelUse:
    """How the attention called `tables.name` is executed, after its processor was exchanged.

    Args:
        network: a backend's own copy.
        executed: its entry `ATTENTION_KERNEL` is incremented at each call.

    Raises:
        LoweringError: the network has no such attention.
    """
    modules = dict(network.named_modules())
    module: Any = modules.get(tables.name)
    if module is None or not is_attention(module):
        raise LoweringError(
            f"the state quantizes attention '{tables.name}', the network has "
            f"{type(module).__name__ if module is not None else 'nothing'} there; expected a "
            "module with `to_q`, `to_k`, `to_v`, `to_out` and a standard processor."
        )
    device = step.index.device
    held = {
        point: (table.bits, table.scale.to(device), table.zero_point.to(device))
        for point, table in tables.by_point().items()
    }

    def point(name: str, x: Tensor) -> Tensor:
        bits, scales, zero_points = held[name]
        scale, zero_point = select_step(scales, zero_points, step.index, x.dim())
        if name == "softmax":
            executed[ATTENTION_KERNEL] = executed.get(ATTENTION_KERNEL, 0) + 1
        return fake_quantize(x, scale, zero_point, bits).to(x.dtype)

    module.set_processor(AttentionProcessor(point))
    return KernelUse(
        layer=tables.name,
        kernel=ATTENTION_KERNEL,
        wbits=max(tables.q.bits, tables.k.bits, tables.v.bits),
        abits=tables.softmax.bits,
        # The topology counts the work of layers only, and so must the kernels.
        macs=0,
        fallback=FALLBACK,
    )


@contextmanager
def _observed(
    network: nn.Module, names: Sequence[str], observe: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """While it lasts, `observe` sees the four values of each attention as `<name>.<point>`."""

    def watch(name: str) -> Point:
        def point(which: str, x: Tensor) -> Tensor:
            observe(f"{name}.{which}", x)
            return x

        return point

    modules: list[Any] = [network.get_submodule(name) for name in names]
    before = [module.processor for module in modules]
    try:
        for name, module in zip(names, modules, strict=True):
            module.set_processor(AttentionProcessor(watch(name)))
        yield
    finally:
        for module, processor in zip(modules, before, strict=True):
            module.set_processor(processor)
