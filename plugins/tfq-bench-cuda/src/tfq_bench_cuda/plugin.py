"""Entry point of the plugin: what it offers, without importing torch."""

from __future__ import annotations

from collections.abc import Iterable

from tfq_bench.api import BackendProvider, Option, hookimpl

__all__ = ["tfq_backends"]


@hookimpl
def tfq_backends() -> Iterable[BackendProvider]:
    """The backend `cuda`."""
    bits = tuple(range(2, 9))
    return [
        BackendProvider(
            name="cuda",
            summary="int8 convolutions and linear layers on NVIDIA tensor cores (TileLang)",
            factory="tfq_bench_cuda.backend:CudaBackend",
            execution="lowered",
            wbits=bits,
            abits=bits,
            devices=("cuda",),
            options=(
                Option(
                    name="batch",
                    kind="int",
                    default=32,
                    minimum=1,
                    maximum=65536,
                    help="images per network call for which tile sizes are chosen; others are "
                    "correct too, only slower",
                ),
                Option(
                    name="blocks",
                    kind="bool",
                    default=True,
                    help="run known blocks of diffusers as fused passes instead of layer by layer",
                ),
                Option(
                    name="graph",
                    kind="bool",
                    default=True,
                    help="capture the whole step in one CUDA graph and replay it",
                ),
                Option(
                    name="weights",
                    kind="str",
                    default="int8",
                    choices=("int8", "packed"),
                    help="how 4-bit weights lie on the device: a byte each, which is fastest, or "
                    "two a byte, unpacked just before each product",
                ),
                Option(
                    name="attention",
                    kind="str",
                    default="16-bit",
                    choices=("16-bit", "int8"),
                    help="queries times keys of unmasked self-attention in fused blocks of 16-bit "
                    "networks; int8 adds an error and was no faster on an H100",
                ),
            ),
        )
    ]
