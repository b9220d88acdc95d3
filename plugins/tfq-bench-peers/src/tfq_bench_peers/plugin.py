"""Entry point of the plugin: what it offers, without importing torch or any tool."""

from __future__ import annotations

from collections.abc import Iterable

from tfq_bench.api import Option, QuantizerProvider, hookimpl

__all__ = ["tfq_quantizers"]

_SAMPLES = Option(
    name="samples",
    kind="int",
    default=64,
    minimum=1,
    help="Sampler states of the calibration data that the tool sees, spread over the steps.",
)


@hookimpl
def tfq_quantizers() -> Iterable[QuantizerProvider]:
    """The contestants, each a tool that must be installed by its extra."""
    yield QuantizerProvider(
        name="nncf",
        summary="OpenVINO on the CPU, quantized by NNCF's post-training quantization (external)",
        factory="tfq_bench_peers.nncf_openvino:NncfOpenVino",
        wbits=(8,),
        abits=(8,),
        policies=("own",),
        external=True,
        options=(
            _SAMPLES,
            Option(
                name="overflow_fix",
                kind="str",
                default="auto",
                choices=("auto", "enable", "disable"),
                help="Weights of 7 bits instead of 8, against sums that saturate; `auto` where a "
                "trial on this machine finds that they do.",
            ),
            Option(
                name="model_type",
                kind="str",
                default="transformer",
                choices=("transformer", "none"),
                help="NNCF's own recipe; `transformer` adds SmoothQuant and spares attention.",
            ),
            Option(
                name="precision",
                kind="str",
                default="f32",
                choices=("f32", "bf16"),
                help="What OpenVINO computes in where it does not in int8.",
            ),
        ),
    )
    yield QuantizerProvider(
        name="torchao",
        summary="torchao: linear layers in int8 or float8, convolutions stay float (external)",
        factory="tfq_bench_peers.torchao_linear:TorchAo",
        wbits=(8,),
        abits=(8, 32),
        policies=("own",),
        external=True,
        options=(
            Option(
                name="dtype",
                kind="str",
                default="int8",
                choices=("int8", "float8"),
                help="float8 needs a GPU of compute capability 8.9 or later.",
            ),
        ),
    )
    yield QuantizerProvider(
        name="torchao-static",
        summary="torchao's PT2E on x86: convolutions and linear layers in static int8 (external)",
        factory="tfq_bench_peers.torchao_static:TorchAoStatic",
        wbits=(8,),
        abits=(8,),
        policies=("own",),
        external=True,
        options=(
            _SAMPLES,
            Option(
                name="reduce_range",
                kind="str",
                default="auto",
                choices=("auto", "enable", "disable"),
                help="Activations of 7 bits instead of 8, against sums that saturate; `auto` where "
                "a trial on this machine finds that they do.",
            ),
        ),
    )
    yield QuantizerProvider(
        name="quanto",
        summary="optimum-quanto: int8 weights of all layers, int8 inputs of linear ones (external)",
        factory="tfq_bench_peers.quanto_static:Quanto",
        wbits=(8,),
        abits=(8, 32),
        policies=("own",),
        external=True,
        options=(_SAMPLES,),
    )
    yield QuantizerProvider(
        name="sdnq",
        summary="SDNQ in a process of its own: linear layers in int8, or all of them (external)",
        factory="tfq_bench_peers.sdnq_external:Sdnq",
        wbits=(8,),
        abits=(8, 32),
        policies=("own",),
        external=True,
        options=(
            Option(
                name="convolutions",
                kind="bool",
                default=False,
                help="Quantize convolutions too, which SDNQ itself does when it is asked to.",
            ),
            Option(
                name="smallest",
                kind="int",
                default=16384,
                minimum=1,
                help="Layers of fewer weights stay float; SDNQ's own default.",
            ),
        ),
    )
