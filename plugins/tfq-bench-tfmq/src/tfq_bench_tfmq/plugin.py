"""Entry point of the plugin: what it offers, without importing torch."""

from __future__ import annotations

from collections.abc import Iterable

from tfq_bench.api import FULL_PRECISION, Option, QuantizerProvider, hookimpl

__all__ = ["tfq_quantizers"]

_OPTIONS = (
    Option(
        name="method",
        kind="str",
        default="cvpr24",
        choices=("cvpr24", "cvpr24-code", "tpami25"),
        help="Publication: CVPR 2024, its released code, or the extension with a cache.",
    ),
    Option(
        name="preset",
        kind="str",
        default="full",
        choices=("quick", "fast", "full"),
        help="Effort: iterations, samples and learning rate; 'full' is the paper's.",
    ),
    Option(
        name="maintenance",
        kind="str",
        default=None,
        choices=("block", "cache", "select"),
        help="What gives temporal features: block, cache, or the better; unset: the method's.",
    ),
    Option(
        name="selection",
        kind="str",
        default="per-step-block",
        choices=("per-step-block", "per-block", "per-step", "global"),
        help="What is selected as one, when maintenance is 'select'.",
    ),
    Option(
        name="error",
        kind="str",
        default="relative",
        choices=("relative", "cosine"),
        help="Disturbance that selection compares.",
    ),
    Option(
        name="cache_bits",
        kind="int",
        default=8,
        choices=(2, 3, 4, 5, 6, 7, 8, 16),
        help="Bits of cached features; 16 is float16.",
    ),
    Option(
        name="cache_granularity",
        kind="str",
        default="channel",
        choices=("step", "block", "channel"),
        help="What shares a scale in the cache: a step of a block, a block, or a channel.",
    ),
    Option(
        name="tiar",
        kind="bool",
        default=True,
        help="Learn the temporal block's rounding apart; else within the blocks that hold it.",
    ),
    Option(
        name="fsc",
        kind="bool",
        default=True,
        help="Give the temporal block's inputs a range per step; else one for all steps.",
    ),
    Option(
        name="conditioned",
        kind="str",
        default="time",
        choices=("time", "float16"),
        help="If a condition joins the time MLP: maintain what is before it, or keep 16 bits.",
    ),
    Option(
        name="activations",
        kind="str",
        default=None,
        choices=("static", "per-step-all"),
        help="Ranges of the other inputs: one for all steps, or per step; unset: the method's.",
    ),
    Option(
        name="ranges",
        kind="str",
        default="ema",
        choices=("ema", "minmax", "mse", "percentile"),
        help="How a range of the other inputs is found; 'ema' is the paper's.",
    ),
    Option(
        name="symmetric_activations",
        kind="bool",
        default=False,
        help="Put the zero point of the other inputs in the middle, as Q-Diffusion does.",
    ),
    Option(
        name="weights",
        kind="str",
        default="mse",
        choices=("mse", "minmax"),
        help="How the range of each output channel's weights is found.",
    ),
    Option(
        name="symmetric_weights",
        kind="bool",
        default=False,
        help="Put the zero point of weights in the middle, as int8 kernels want it.",
    ),
    Option(
        name="split",
        kind="bool",
        default=True,
        help="Give shortcuts over a concatenation parameters of their own per half.",
    ),
    Option(
        name="steps",
        kind="int",
        default=20,
        minimum=1,
        help="Sampler steps that calibration data are taken from.",
    ),
    Option(
        name="samples",
        kind="int",
        default=None,
        minimum=1,
        help="Images at each of these steps; unset: the preset's.",
    ),
    Option(
        name="iterations",
        kind="int",
        default=None,
        minimum=0,
        help="Rounding iterations per block, 0 for nearest rounding; unset: the preset's.",
    ),
    Option(
        name="tiar_iterations",
        kind="int",
        default=None,
        minimum=0,
        help="Rounding iterations of the temporal block, 0 for nearest; unset: the preset's.",
    ),
    Option(
        name="batch",
        kind="int",
        default=None,
        minimum=1,
        help="Samples per iteration; unset: the preset's.",
    ),
    Option(
        name="lr",
        kind="float",
        default=None,
        minimum=1e-8,
        help="Learning rate of the rounding variables, per block; unset: the preset's.",
    ),
    Option(
        name="tiar_lr",
        kind="float",
        default=None,
        minimum=1e-8,
        help="Learning rate of the temporal block's rounding variables; unset: the preset's.",
    ),
    Option(
        name="activation_iterations",
        kind="int",
        default=None,
        minimum=0,
        help="Iterations per block that learn activation steps, 0 for none; unset: preset's.",
    ),
    Option(
        name="activation_lr",
        kind="float",
        default=None,
        minimum=1e-8,
        help="Learning rate of activation steps; unset: the preset's.",
    ),
    Option(
        name="bias_correction",
        kind="bool",
        default=False,
        help="Take the mean error of predictions out of the output layer's bias; not in the paper.",
    ),
)


@hookimpl
def tfq_quantizers() -> Iterable[QuantizerProvider]:
    """The quantizer `tfmq`."""
    return [
        QuantizerProvider(
            name="tfmq",
            summary="TFMQ-DM: temporal features maintained (TIAR, FSC, cache, selection).",
            factory="tfq_bench_tfmq.quantizer:Tfmq",
            wbits=tuple(range(2, 9)),
            abits=(*range(4, 9), FULL_PRECISION),
            policies=("uniform", "uniform-temporal16", "uniform-io16", "paper", "code"),
            options=_OPTIONS,
        )
    ]
