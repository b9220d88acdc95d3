"""Entry point of the plugin: what it offers, without importing torch or OpenVINO."""

from __future__ import annotations

from collections.abc import Iterable

from tfq_bench.api import BackendProvider, Option, hookimpl

__all__ = ["tfq_backends"]


@hookimpl
def tfq_backends() -> Iterable[BackendProvider]:
    """The backend `openvino`."""
    bits = tuple(range(2, 9))
    return [
        BackendProvider(
            name="openvino",
            summary="the whole network as one OpenVINO model, int8 on x86 CPUs",
            factory="tfq_bench_openvino.backend:OpenVinoBackend",
            execution="lowered",
            wbits=bits,
            abits=bits,
            devices=("cpu",),
            options=(
                Option(
                    name="precision",
                    kind="str",
                    default="f32",
                    choices=("f32", "bf16"),
                    help="what OpenVINO computes in where it does not in int8; bf16 needs a "
                    "processor with AVX512-BF16 or AMX, and moves codes by one here and there",
                ),
            ),
        )
    ]
