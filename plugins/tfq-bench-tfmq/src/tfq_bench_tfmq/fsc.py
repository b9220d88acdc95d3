"""Finite Set Calibration: activation parameters of the temporal block for every sampler step.

An input of the block takes one value per step, a vector known beforehand. Its own minimum and
maximum are then its calibration: parameters (s_t, z_t) for each step t (arXiv:2311.16503, FSC).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from tfq_bench.api import FULL_PRECISION
from tfq_bench.quant import ActivationQParams, affine_from_range, fake_quantize

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench_tfmq.block import OnInput, TemporalBlock

__all__ = ["calibrate_inputs", "with_tables"]


@torch.no_grad()
def calibrate_inputs(
    block: TemporalBlock,
    weights: Mapping[str, Tensor],
    bits: Mapping[str, int],
    *,
    per_step: bool,
) -> dict[str, ActivationQParams]:
    """A table for the input of each layer in `bits`; the others' inputs stay float.

    Layers are calibrated in execution order, each on what the quantized ones before it give.

    Args:
        weights: quantized weights, by layer.
        bits: of the activations, by layer; 32 leaves an input float.
        per_step: a range for every step (FSC), else one that holds the values of all steps.
    """
    tables: dict[str, ActivationQParams] = {}

    def calibrate(name: str, x: Tensor) -> Tensor:
        if bits.get(name, FULL_PRECISION) == FULL_PRECISION:
            return x
        rows = x if per_step else x.reshape(1, -1)
        scale, zero_point = affine_from_range(rows.amin(dim=1), rows.amax(dim=1), bits[name])
        tables[name] = ActivationQParams(
            bits=bits[name], scale=scale.cpu(), zero_point=zero_point.cpu()
        )
        return fake_quantize(x, scale[:, None], zero_point[:, None], bits[name])

    block.features(weights, calibrate)
    return tables


def with_tables(tables: Mapping[str, ActivationQParams]) -> OnInput:
    """Quantizes the input of each layer that has a table, row k with the entry of step k."""

    def quantize(name: str, x: Tensor) -> Tensor:
        if name not in tables:
            return x
        table = tables[name]
        scale, zero_point = table.scale.to(x.device), table.zero_point.to(x.device)
        return fake_quantize(x, scale[:, None], zero_point[:, None], table.bits)

    return quantize
