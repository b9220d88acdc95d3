"""The host's own plugin: what is there without installing anything else.

It uses the same hooks as every other plugin and has no privilege but one: blocking all plugins
(``--no-plugins``) leaves it in place. What it imports is imported by every command: not `api`.
"""

from __future__ import annotations

from collections.abc import Iterator

from tfq_bench.providers import (
    BackendProvider,
    ExecutorProvider,
    MetricProvider,
    QuantizerProvider,
    hookimpl,
)
from tfq_bench.types.cells import FULL_PRECISION
from tfq_bench.types.options import Option

__all__: list[str] = []

_BITS = (2, 3, 4, 5, 6, 7, 8)
_FULL = (FULL_PRECISION,)

_EXTRACTOR = (
    Option(
        name="extractor",
        kind="str",
        default="efficientnet-lite0",
        choices=("efficientnet-lite0", "inception"),
        help="Network whose features are compared.",
        in_definition=True,
    ),
    Option(
        name="inception_weights",
        kind="path",
        default="",
        help="File with the Inception weights; empty for the fetched one ('tfq-bench assets').",
        in_definition=True,
    ),
    Option(
        name="inception_sha256",
        kind="str",
        default="",
        help="Expected SHA-256 of that file; empty for the published one.",
        in_definition=True,
    ),
)
_REFERENCE = Option(
    name="reference",
    kind="path",
    default="",
    help="File with reference statistics; empty for the one that ships with the model.",
    in_definition=True,
)
_REPLICATES = Option(
    name="replicates",
    kind="int",
    default=200,
    minimum=0,
    help="Bootstrap replicates behind the interval.",
    in_definition=True,
)


@hookimpl
def tfq_quantizers() -> Iterator[QuantizerProvider]:
    """Full precision and round to nearest."""
    yield QuantizerProvider(
        name="fp",
        summary="Full precision: nothing is quantized; the reference of every comparison.",
        factory="tfq_bench.pipeline.quantize:full_precision",
        wbits=_FULL,
        abits=_FULL,
    )
    yield QuantizerProvider(
        name="rtn",
        summary="Round to nearest, with static ranges from calibration data.",
        factory="tfq_bench.quant.rtn:RoundToNearest",
        wbits=_BITS,
        abits=(4, 5, 6, 7, 8, *_FULL),
        policies=("uniform", "uniform-temporal16", "uniform-io16"),
        options=(
            Option(
                name="weights",
                kind="str",
                default="minmax",
                choices=("minmax", "mse"),
                help="How the range of each output channel's weights is found.",
            ),
            Option(
                name="activations",
                kind="str",
                default="minmax",
                choices=("minmax", "mse", "percentile", "ema"),
                help="How the range of each layer's input is found.",
            ),
            Option(
                name="symmetric_weights",
                kind="bool",
                default=True,
                help="Whether weight codes are symmetric around zero.",
            ),
            Option(
                name="calibration_steps",
                kind="int",
                default=8,
                minimum=1,
                help="Sampler steps, evenly spread, whose inputs are looked at.",
            ),
            Option(
                name="split",
                kind="bool",
                default=False,
                help="Whether shortcuts quantize both halves of a concatenation apart.",
            ),
            Option(
                name="temporal",
                kind="str",
                default="layers",
                choices=("layers", "cache16"),
                help="Temporal layers quantized like others, or their outputs looked up in "
                "float16.",
            ),
            Option(
                name="jitter",
                kind="float",
                default=0.0,
                minimum=0.0,
                maximum=0.5,
                help="Half width, relative, of a random factor on each output channel's weight "
                "scale (0.03: 3 %), drawn by the seed: 'seeds' become replicates of rounding.",
            ),
        ),
    )


@hookimpl
def tfq_backends() -> Iterator[BackendProvider]:
    """Simulation in floating point."""
    yield BackendProvider(
        name="simulate",
        summary="Float arithmetic on dequantized integers: accuracy without the speed.",
        factory="tfq_bench.quant.lower.simulate:SimulateBackend",
        execution="simulated",
        wbits=(*_BITS, *_FULL),
        abits=(*_BITS, *_FULL),
        devices=("cpu", "cuda"),
    )


@hookimpl
def tfq_executors() -> Iterator[ExecutorProvider]:
    """In this process, or each task in its own."""
    yield ExecutorProvider(
        name="inline",
        summary="Every task in this process, one after another.",
        factory="tfq_bench.executors.inline:InlineExecutor",
    )
    yield ExecutorProvider(
        name="process",
        summary="Each cell in processes of its own.",
        factory="tfq_bench.executors.process:ProcessExecutor",
        gpus=True,
        options=(
            Option(
                name="slots",
                kind="int",
                default=1,
                minimum=1,
                help="Tasks that run at the same time.",
            ),
        ),
    )


@hookimpl
def tfq_metrics() -> Iterator[MetricProvider]:
    """Image quality, distance to full precision, temporal features, cost, size, kernels, speed."""
    yield MetricProvider(
        name="frechet",
        summary="Fréchet distance between features of the images and of the reference set.",
        factory="tfq_bench.metrics.frechet:Frechet",
        assets="tfq_bench.assets.published:inception_assets",
        options=(*_EXTRACTOR, _REFERENCE, _REPLICATES),
    )
    yield MetricProvider(
        name="kernel-distance",
        summary="Unbiased polynomial-kernel distance between the same features.",
        factory="tfq_bench.metrics.kernel_distance:KernelDistance",
        assets="tfq_bench.assets.published:inception_assets",
        options=(*_EXTRACTOR, _REFERENCE),
    )
    yield MetricProvider(
        name="inception-score",
        summary="Diversity and confidence of the extractor's class predictions.",
        factory="tfq_bench.metrics.inception_score:InceptionScore",
        assets="tfq_bench.assets.published:inception_assets",
        options=_EXTRACTOR,
    )
    yield MetricProvider(
        name="precision-recall",
        summary="Share of images near the reference set's features, and the reverse.",
        factory="tfq_bench.metrics.precision_recall:PrecisionRecall",
        assets="tfq_bench.assets.published:inception_assets",
        options=(
            *_EXTRACTOR,
            _REFERENCE,
            Option(
                name="k",
                kind="int",
                default=3,
                minimum=1,
                help="Neighbours that span a ball.",
                in_definition=True,
            ),
        ),
    )
    yield MetricProvider(
        name="paired",
        summary="PSNR (also without the mean shift) and SSIM against the full-precision image.",
        factory="tfq_bench.metrics.paired:Paired",
    )
    yield MetricProvider(
        name="temporal",
        summary="Error of the temporal features, per sampler step and block.",
        factory="tfq_bench.metrics.temporal:Temporal",
    )
    yield MetricProvider(
        name="trajectory",
        summary="How far sampling departs from full precision, and its systematic part, per step.",
        factory="tfq_bench.metrics.trajectory:Trajectory",
        options=(
            Option(
                name="images",
                kind="int",
                default=16,
                minimum=2,
                help="Images that are sampled again with both networks.",
                in_definition=True,
            ),
        ),
    )
    yield MetricProvider(
        name="cost",
        summary="What the method took: seconds, peak memory and network calls of calibration.",
        factory="tfq_bench.metrics.cost:Cost",
    )
    yield MetricProvider(
        name="bits",
        summary="Mean bits per weight, bytes by role, exempt layers.",
        factory="tfq_bench.metrics.bits:Bits",
    )
    yield MetricProvider(
        name="kernels",
        summary="Which kernels ran, share of work at low bits, fallbacks.",
        factory="tfq_bench.metrics.kernel_usage:KernelUsage",
    )
    yield MetricProvider(
        name="sanity",
        summary="Fails where images are black, plain, alike or points; every run has it.",
        factory="tfq_bench.metrics.sanity:Sanity",
        options=(
            Option(
                name="saturated",
                kind="float",
                default=0.95,
                minimum=0.0,
                maximum=2.0,
                help="Share of values at 0 or 255 from which images are points; above 1 never.",
            ),
        ),
    )
    yield MetricProvider(
        name="timing",
        summary="Latency of a network call, against full precision on the same machine.",
        factory="tfq_bench.metrics.timing:Timing",
        timed=True,
    )
