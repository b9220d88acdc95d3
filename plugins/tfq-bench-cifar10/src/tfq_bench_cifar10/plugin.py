"""What this distribution offers to the host. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

from tfq_bench import api

__all__: list[str] = []


@api.hookimpl
def tfq_models() -> Iterator[api.ModelProvider]:
    """The embedded model."""
    yield api.ModelProvider(
        name="cifar10",
        summary="Unconditional DDPM on CIFAR-10, 6.5 M parameters, weights embedded",
        factory="tfq_bench_cifar10.model:Cifar10Model",
        samplers=("ddim", "ddim-quadratic"),
        gmac=1.5,
    )
