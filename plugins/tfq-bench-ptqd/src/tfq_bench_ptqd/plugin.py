"""Entry point of the plugin: what it offers, without importing torch."""

from __future__ import annotations

from collections.abc import Iterable

from tfq_bench.api import Option, QuantizerProvider, hookimpl

__all__ = ["tfq_quantizers"]

_OPTIONS = (
    Option(
        name="correction_images",
        kind="int",
        default=64,
        minimum=1,
        help="Images at every step that the error is fitted on, at most those that the base sees.",
    ),
    Option(
        name="correct_slope",
        kind="bool",
        default=True,
        help="Divide the prediction by 1 + slope; else all slopes are 0.",
    ),
    Option(
        name="correct_bias",
        kind="bool",
        default=True,
        help="Take the bias of each step and channel out of the prediction; else it stays.",
    ),
    Option(
        name="absorb_variance",
        kind="bool",
        default=True,
        help="Take what remains of the error's variance out of a stochastic sampler's noise.",
    ),
    Option(
        name="negative_slopes",
        kind="bool",
        default=False,
        help="Keep slopes below 0, which the paper's equations allow and its code sets to 0.",
    ),
)


@hookimpl
def tfq_quantizers() -> Iterable[QuantizerProvider]:
    """The quantizer `ptqd`, in front of another one's name."""
    return [
        QuantizerProvider(
            name="ptqd",
            summary="PTQD: slope, bias and variance of a method's error, taken out at the sampler.",
            factory="tfq_bench_ptqd.quantizer:Ptqd",
            options=_OPTIONS,
            wraps=True,
        )
    ]
