"""Settings: methods (which choices) and efforts (how much of each); and layer policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tfq_bench.api import FULL_PRECISION
from tfq_bench.quant import POLICIES as SHARED
from tfq_bench.quant import (
    AttentionBits,
    Exempt,
    LayerBits,
    Policy,
    find_layer,
    find_policy,
    resolve,
)
from tfq_bench_tfmq.conditional_projections import behind_condition

if TYPE_CHECKING:
    from tfq_bench.api import LoadedModel, OptionValue, Scheme
    from tfq_bench.quant import RangeMethod, WeightMethod
    from tfq_bench_tfmq.cache import Granularity
    from tfq_bench_tfmq.selection import ErrorMeasure, Scope

__all__ = [
    "CODE",
    "EFFORTS",
    "METHODS",
    "PAPER",
    "POLICIES",
    "Activations",
    "Conditioned",
    "Maintenance",
    "Settings",
    "layer_plan",
    "settle",
]

Maintenance = Literal["block", "cache", "select"]
Activations = Literal["static", "per-step-all"]
Conditioned = Literal["time", "float16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that `Tfmq` does. Those without a default are a method's or an effort's.

    Args:
        maintenance: what gives the temporal features: the quantized block, the cache, or whichever
            disturbs less.
        activations: whether inputs outside of the temporal block have one range or one per step.
        iterations: of rounding, per block; 0 for nearest rounding.
        tiar_iterations: of rounding of the temporal block. One is cheap: it needs no images.
        lr: of the rounding variables, but for those of the temporal block.
        tiar_lr: of these. Their loss has no noise of drawn batches, and needs longer steps.
        batch: samples per iteration.
        samples: images at each calibration step.
        activation_iterations: of activation steps, per block, after the weights; 0 for none.
        activation_lr: of the logarithms of activation scales.
        selection: what is selected as one. error: disturbance that selection compares.
        cache_bits: of cached features; 16 is float16.
        cache_granularity: what shares a scale in the cache.
        tiar: whether the temporal block's rounding is learned apart.
        fsc: whether the temporal block's inputs have a range per step.
        conditioned: what is done where a condition joins the time MLP, see `layer_plan`.
        ranges: how a range of the other inputs is found.
        symmetric_activations: whether their codes have the zero point in the middle.
        weights: how a channel's range is found.
        symmetric_weights: whether weight codes have their zero point in the middle.
        split: whether shortcuts over a concatenation have parameters per half.
        steps: sampler steps that calibration data are taken from.
        bias_correction: see `correct_output_bias`.
    """

    maintenance: Maintenance
    activations: Activations
    iterations: int
    tiar_iterations: int
    lr: float
    tiar_lr: float
    batch: int
    samples: int
    activation_iterations: int
    activation_lr: float
    selection: Scope = "per-step-block"
    error: ErrorMeasure = "relative"
    cache_bits: int = 8
    cache_granularity: Granularity = "channel"
    tiar: bool = True
    fsc: bool = True
    conditioned: Conditioned = "time"
    ranges: RangeMethod = "ema"
    symmetric_activations: bool = False
    weights: WeightMethod = "mse"
    symmetric_weights: bool = False
    split: bool = True
    steps: int = 20
    bias_correction: bool = False


EFFORTS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "iterations": 40,
        "tiar_iterations": 500,
        "lr": 3e-2,
        "tiar_lr": 1e-1,
        "batch": 8,
        "samples": 4,
        "activation_iterations": 0,
        "activation_lr": 4e-4,
    },
    "fast": {
        "iterations": 1000,
        "tiar_iterations": 3000,
        "lr": 1e-2,
        "tiar_lr": 3e-2,
        "batch": 32,
        "samples": 64,
        "activation_iterations": 250,
        "activation_lr": 2e-3,
    },
    "full": {
        "iterations": 20_000,
        "tiar_iterations": 20_000,
        "lr": 1e-3,
        "tiar_lr": 1e-3,
        "batch": 32,
        "samples": 256,
        "activation_iterations": 5_000,
        "activation_lr": 4e-4,
    },
}
"""How much is done, for any method: what `qdiffusion` does outside of the temporal block, so that
the two compare. Fewer iterations need longer steps, or nothing moves. `quick` leaves activation
steps as they start: in the time it has, they would not move."""

METHODS: Mapping[str, Mapping[str, Any]] = {
    "cvpr24": {"maintenance": "block", "activations": "static", "activation_iterations": 0},
    "cvpr24-code": {
        "maintenance": "block",
        "activations": "per-step-all",
        "activation_iterations": 0,
    },
    "tpami25": {"maintenance": "select", "activations": "per-step-all"},
}
"""What a publication does, at any effort. Only the extension learns activation steps."""


def settle(*, method: str = "cvpr24", preset: str = "full", **given: OptionValue) -> Settings:
    """The settings of a method at an effort, but for those that are given and not None.

    Args:
        method: name in `METHODS`. preset: name in `EFFORTS`.
        given: by name of a field of `Settings`.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    return Settings(**{**EFFORTS[preset], **METHODS[method], **chosen})


_FLOAT = "stays float in the released code"
_HALF = "a condition enters the temporal features; they are kept in 16 bits"

PAPER = Policy(
    name="paper",
    exempt={
        "input": "the paper keeps the first layer in full precision",
        "output": "the paper keeps the last layer in full precision",
    },
    attention=AttentionBits(operands=8, softmax=8),
)
"""As described in arXiv:2311.16503. The paper does not name attention's bits; 8 is its code's."""

CODE = Policy(
    name="code",
    exempt={"input": _FLOAT, "output": _FLOAT, "shortcut": _FLOAT},
    attention=PAPER.attention,
)
"""The released code's exemptions, as far as roles say them; `layer_plan` adds the others."""

POLICIES = (*SHARED, PAPER, CODE)


def layer_plan(
    loaded: LoadedModel, scheme: Scheme, conditioned: Conditioned = "time"
) -> dict[str, LayerBits | Exempt]:
    """Bits or exemption of every layer under the scheme's policy.

    Under `code` these are float besides the roles that the policy names: the first layer of the
    time MLP, down-sampling convolutions (stride above 1), and the inputs, not the weights, of the
    other layers of the time MLP and of the first convolution in a residual block.

    Args:
        conditioned: `float16` keeps time MLP and time projections in 16 bits, where some of these
            read a condition.

    Raises:
        QuantizationError: an unknown policy, or impossible bits.
    """
    topology = loaded.topology
    plan = resolve(find_policy(scheme.policy, POLICIES), topology, scheme)
    if scheme.policy == CODE.name:
        _exempt_as_code(loaded, plan)
    if conditioned == "float16" and behind_condition(topology):
        for name in (*topology.time_mlp, *topology.time_projections):
            if isinstance(plan[name], LayerBits):
                plan[name] = Exempt(reason=_HALF, bits=16)
    return plan


def _exempt_as_code(loaded: LoadedModel, plan: dict[str, LayerBits | Exempt]) -> None:
    topology = loaded.topology
    convolutions = [layer.name for layer in topology.layers if layer.role == "conv"]
    for layer in topology.layers:
        module = find_layer(loaded.network, layer.name)
        downwards = layer.role == "resample" and max(getattr(module, "stride", (1,))) > 1
        if downwards or layer.name in topology.time_mlp[:1]:
            plan[layer.name] = Exempt(reason=_FLOAT)
    for name in (*topology.time_mlp[1:], *convolutions[:1]):
        bits = plan[name]
        if isinstance(bits, LayerBits):
            plan[name] = LayerBits(wbits=bits.wbits, abits=FULL_PRECISION)
