"""The hooks that the host calls, typed, each with an example.

A plugin is a module named by an entry point of the group ``tfq_bench``. It implements any of these
functions, marked with ``@api.hookimpl``. Each returns providers: descriptions that cost nothing to
import.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from tfq_bench.providers import (
    BackendProvider,
    ExecutorProvider,
    MetricProvider,
    ModelProvider,
    Provider,
    QuantizerProvider,
    RendererProvider,
)

__all__ = [
    "REGISTRATIONS",
    "tfq_backends",
    "tfq_executors",
    "tfq_metrics",
    "tfq_models",
    "tfq_quantizers",
    "tfq_renderers",
]

_hookspec = pluggy.HookspecMarker("tfq_bench")


@_hookspec
def tfq_models() -> Iterable[ModelProvider]:  # type: ignore[empty-body]
    """Diffusion models that a suite may name under ``[[model]]``.

    Example::

        @api.hookimpl
        def tfq_models():
            yield api.ModelProvider(
                name="cifar10", summary="Small DDPM.", factory="my_plugin.model:Cifar10"
            )
    """


@_hookspec
def tfq_quantizers() -> Iterable[QuantizerProvider]:  # type: ignore[empty-body]
    """Quantization methods that a suite may name under ``[[quantizer]]``.

    A tool that executes what it quantizes by itself is one with ``external=True``, whose factory
    makes a `Contestant`. One with ``wraps=True`` changes what another makes, as in ``ptqd+rtn``.

    Example::

        @api.hookimpl
        def tfq_quantizers():
            yield api.QuantizerProvider(
                name="rounding",
                summary="Round to nearest.",
                factory="my_plugin.rounding:Rounding",
                wbits=(4, 8),
                abits=(8,),
            )
    """


@_hookspec
def tfq_backends() -> Iterable[BackendProvider]:  # type: ignore[empty-body]
    """Ways to execute a quantized state that a suite may name under ``[[backend]]``.

    Example::

        @api.hookimpl
        def tfq_backends():
            yield api.BackendProvider(
                name="cpu",
                summary="int8 kernels of oneDNN.",
                factory="my_plugin.backend:Cpu",
                execution="lowered",
                wbits=(8,),
                abits=(8,),
                devices=("cpu",),
            )
    """


@_hookspec
def tfq_metrics() -> Iterable[MetricProvider]:  # type: ignore[empty-body]
    """Families of numbers that a suite may name under ``[[metric]]``.

    Example::

        @api.hookimpl
        def tfq_metrics():
            yield api.MetricProvider(
                name="sharpness", summary="Gradient norm.", factory="my_plugin.metric:Sharpness"
            )
    """


@_hookspec
def tfq_executors() -> Iterable[ExecutorProvider]:  # type: ignore[empty-body]
    """Ways to place tasks on slots, named by ``tfq-bench run --executor``.

    Example::

        @api.hookimpl
        def tfq_executors():
            yield api.ExecutorProvider(
                name="dask", summary="Tasks on a Dask cluster.", factory="my_plugin.dask:Dask"
            )
    """


@_hookspec
def tfq_renderers() -> Iterable[RendererProvider]:  # type: ignore[empty-body]
    """Report formats, named by ``tfq-bench report --renderer``.

    Example::

        @api.hookimpl
        def tfq_renderers():
            yield api.RendererProvider(
                name="html", summary="One page.", factory="my_plugin.html:Page", suffix=".html"
            )
    """


REGISTRATIONS: dict[str, type[Provider]] = {
    "tfq_models": ModelProvider,
    "tfq_quantizers": QuantizerProvider,
    "tfq_backends": BackendProvider,
    "tfq_metrics": MetricProvider,
    "tfq_executors": ExecutorProvider,
    "tfq_renderers": RendererProvider,
}
"""The hooks, and the type of what each must return."""
