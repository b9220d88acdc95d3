"""What this distribution offers to the host. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

from tfq_bench import api

__all__: list[str] = []

SAMPLERS = ("ddim", "ddim-quadratic")
GUIDANCE = api.Option(
    name="guidance",
    kind="float",
    default=1.5,
    help="scale of classifier-free guidance, 1 for the conditional prediction alone",
    minimum=1.0,
    maximum=20.0,
)
DTYPE = api.Option(
    name="dtype",
    kind="str",
    default="float32",
    choices=("float32", "bfloat16", "float16"),
    help="what the full-precision network computes in; the weights are float16",
)


@api.hookimpl
def tfq_models() -> Iterator[api.ModelProvider]:
    """Three architectures, trained on the same images."""
    yield api.ModelProvider(
        name="cifar10",
        summary="Unconditional DDPM on CIFAR-10, 6.5 M parameters, weights embedded",
        factory="tfq_bench_cifar10.model:unconditional",
        options=(DTYPE,),
        samplers=SAMPLERS,
        gmac=1.5,
    )
    yield api.ModelProvider(
        name="cifar10-conditional",
        summary="Class-conditional U-Net with cross-attention on CIFAR-10, 7.5 M parameters",
        factory="tfq_bench_cifar10.model:conditional",
        options=(GUIDANCE, DTYPE),
        samplers=SAMPLERS,
        gmac=1.73,
    )
    yield api.ModelProvider(
        name="cifar10-dit",
        summary="Class-conditional DiT on CIFAR-10, 7.6 M parameters",
        factory="tfq_bench_cifar10.model:dit",
        options=(GUIDANCE, DTYPE),
        samplers=SAMPLERS,
        gmac=1.14,
    )
