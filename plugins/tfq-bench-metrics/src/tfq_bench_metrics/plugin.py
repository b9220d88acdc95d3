"""Entry point of the plugin: what it offers, without importing torch."""

from __future__ import annotations

from collections.abc import Iterator

from tfq_bench.api import MetricProvider, Option, hookimpl

__all__ = ["tfq_metrics"]


@hookimpl
def tfq_metrics() -> Iterator[MetricProvider]:
    """LPIPS and CLIP score."""
    yield MetricProvider(
        name="lpips",
        summary="Learned perceptual distance to the full-precision image of the same noise.",
        factory="tfq_bench_metrics.lpips:Lpips",
        assets="tfq_bench_metrics.lpips_files:alexnet_assets",
        options=(
            Option(
                name="weights",
                kind="path",
                default="",
                help="File with the network's weights; empty for the fetched one.",
                in_definition=True,
            ),
            Option(
                name="sha256",
                kind="str",
                default="",
                help="Expected SHA-256 of that file.",
                in_definition=True,
            ),
        ),
    )
    yield MetricProvider(
        name="clip-score",
        summary="How well each image shows its prompt, by a CLIP model that is on this machine.",
        factory="tfq_bench_metrics.clip_score:ClipScore",
        assets="tfq_bench_metrics.clip_files:clip_assets",
        options=(
            Option(
                name="weights",
                kind="path",
                default="",
                help="Folder of a CLIP model in transformers' format; empty to take 'hub'.",
                in_definition=True,
            ),
            Option(
                name="hub",
                kind="str",
                # What torchmetrics takes, and most tables about text-to-image models.
                default="openai/clip-vit-large-patch14",
                help="Hub id of a CLIP model, read from the local cache, never downloaded.",
                in_definition=True,
            ),
        ),
    )
