"""Entry point of the plugin: what it offers, without importing torch."""

from __future__ import annotations

from collections.abc import Iterable

from tfq_bench.api import FULL_PRECISION, Option, QuantizerProvider, hookimpl

__all__ = ["tfq_quantizers"]


@hookimpl
def tfq_quantizers() -> Iterable[QuantizerProvider]:
    """The quantizer `ptq4dm`."""
    return [
        QuantizerProvider(
            name="ptq4dm",
            summary="PTQ4DM: normally distributed timestep calibration, symmetric MSE ranges.",
            factory="tfq_bench_ptq4dm.quantizer:Ptq4dm",
            wbits=tuple(range(2, 9)),
            abits=(*range(4, 9), FULL_PRECISION),
            policies=("uniform", "uniform-temporal16", "uniform-io16", "paper"),
            options=(
                Option(
                    name="preset",
                    kind="str",
                    default="full",
                    choices=("quick", "fast", "full"),
                    help="Size of the calibration set and of the samples that ranges rest on.",
                ),
                Option(
                    name="sampling",
                    kind="str",
                    default="normal",
                    choices=("normal", "uniform", "mirrored", "released"),
                    help="Which states with which timesteps; 'released' as in the script.",
                ),
                Option(
                    name="mu",
                    kind="float",
                    default=0.4,
                    minimum=0.0,
                    maximum=1.0,
                    help="Mean of the drawn timesteps as a share of all; 0 is the clean end.",
                ),
                Option(
                    name="sigma",
                    kind="float",
                    default=0.4,
                    minimum=0.001,
                    maximum=10.0,
                    help="Standard deviation of the drawn timesteps, as a share of all.",
                ),
                Option(
                    name="samples",
                    kind="int",
                    default=None,
                    minimum=1,
                    help="Calibration samples; unset: the preset's.",
                ),
                Option(
                    name="values",
                    kind="int",
                    default=None,
                    minimum=1,
                    help="Activation values per layer and batch searched; unset: the preset's.",
                ),
                Option(
                    name="range_batch",
                    kind="int",
                    default=None,
                    minimum=1,
                    help="Samples per update of activation ranges; unset: 256, fewer large ones.",
                ),
                Option(
                    name="prefix",
                    kind="str",
                    default="quantized",
                    choices=("quantized", "float"),
                    help="Activation ranges are found behind quantized or float earlier layers.",
                ),
                Option(
                    name="iterations",
                    kind="int",
                    default=0,
                    minimum=0,
                    help="Rounding iterations per block; 0 rounds to nearest like the script.",
                ),
                Option(
                    name="lr",
                    kind="float",
                    default=1e-3,
                    minimum=1e-8,
                    help="Learning rate of rounding; fewer iterations need more, 1e-2 for 1000.",
                ),
                Option(
                    name="jitter",
                    kind="float",
                    default=0.0,
                    minimum=0.0,
                    maximum=0.5,
                    help="As of 'rtn': 'seeds' become replicates of rounding (0.03: 3 %).",
                ),
            ),
        )
    ]
