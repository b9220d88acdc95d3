"""A plugin that offers the model `tiny`; install it with the fixture `plugin_host`."""

from __future__ import annotations

from collections.abc import Iterator

from tfq_bench import api

__all__: list[str] = []


@api.hookimpl
def tfq_models() -> Iterator[api.ModelProvider]:
    """The model `tiny`."""
    yield api.ModelProvider(
        name="tiny",
        summary="A random network for 8-pixel images, for tests.",
        factory="tfq_bench.testing.tiny:TinyModel",
        samplers=("ddim", "ddim-stochastic"),
        gmac=0.0009,
        options=(
            api.Option(
                name="weights_seed",
                kind="int",
                default=0,
                minimum=0,
                help="Of the random weights; another seed is another model.",
            ),
        ),
    )
