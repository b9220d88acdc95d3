"""Entry point of the plugin: what it offers, without importing torch."""

from __future__ import annotations

from collections.abc import Iterable

from tfq_bench.api import BackendProvider, hookimpl

__all__ = ["tfq_backends"]


@hookimpl
def tfq_backends() -> Iterable[BackendProvider]:
    """The backend `cpu`."""
    bits = tuple(range(2, 9))
    return [
        BackendProvider(
            name="cpu",
            summary="int8 convolutions and linear layers on x86 CPUs (oneDNN)",
            factory="tfq_bench_cpu.backend:CpuBackend",
            execution="lowered",
            wbits=bits,
            abits=bits,
            devices=("cpu",),
        )
    ]
