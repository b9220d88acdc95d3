"""Entry point of the plugin: what it offers, without importing torch."""

from __future__ import annotations

from collections.abc import Iterable

from tfq_bench.api import FULL_PRECISION, Option, QuantizerProvider, hookimpl

__all__ = ["tfq_quantizers"]

_OPTIONS = (
    Option(
        name="preset",
        kind="str",
        default="full",
        choices=("quick", "fast", "full"),
        help="Effort: iterations, samples and learning rates; 'full' is the paper's.",
    ),
    Option(
        name="variant",
        kind="str",
        default="cifar",
        choices=("cifar", "ldm", "sd"),
        help="Choices of the released script for this family of models.",
    ),
    Option(
        name="weights",
        kind="str",
        default=None,
        choices=("minmax", "mse"),
        help="How the range of each output channel's weights is found; unset: the variant's.",
    ),
    Option(
        name="symmetric_weights",
        kind="bool",
        default=False,
        help="Put the zero point of weights in the middle, as int8 kernels want it.",
    ),
    Option(
        name="activations",
        kind="str",
        default=None,
        choices=("minmax", "mse", "ema"),
        help="Range that learning of an input's step starts from; unset: the variant's.",
    ),
    Option(
        name="symmetric_activations",
        kind="bool",
        default=None,
        help="Whether activation codes have their zero point in the middle; unset: variant's.",
    ),
    Option(
        name="split",
        kind="bool",
        default=None,
        help="Whether shortcuts have parameters per half of a concatenation; unset: variant's.",
    ),
    Option(
        name="steps",
        kind="int",
        default=None,
        minimum=1,
        help="Sampler steps that calibration data are taken from; unset: the variant's.",
    ),
    Option(
        name="samples",
        kind="int",
        default=None,
        minimum=1,
        help="Images at each of these steps; unset: the variant's, at most the preset's.",
    ),
    Option(
        name="iterations",
        kind="int",
        default=None,
        minimum=0,
        help="Rounding iterations per block, 0 for nearest rounding; unset: the preset's.",
    ),
    Option(
        name="activation_iterations",
        kind="int",
        default=None,
        minimum=0,
        help="Iterations per block that learn activation steps, 0 for none; unset: preset's.",
    ),
    Option(
        name="batch",
        kind="int",
        default=None,
        minimum=1,
        help="Samples per iteration; unset: the variant's, at most the preset's.",
    ),
    Option(
        name="lr",
        kind="float",
        default=None,
        minimum=1e-8,
        help="Learning rate of the rounding variables; unset: the preset's.",
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
    """The quantizer `qdiffusion`."""
    return [
        QuantizerProvider(
            name="qdiffusion",
            summary="Q-Diffusion: uniform-in-time calibration, split shortcuts, AdaRound blocks.",
            factory="tfq_bench_qdiffusion.quantizer:QDiffusion",
            wbits=tuple(range(2, 9)),
            abits=(*range(4, 9), FULL_PRECISION),
            policies=("uniform", "uniform-temporal16", "uniform-io16", "paper"),
            options=_OPTIONS,
        )
    ]
