"""Every layer of a lowered network against exact integer arithmetic, while the network runs.

A backend is believed in nothing: each call of a layer is compared with the sums that the state's
integers give for the very input of that call, see `exact_call`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tfq_bench.errors import LoweringError
from tfq_bench.quant.layers import WeightedLayer, find_layer
from tfq_bench.quant.lower.exact_call import ExactCall, LayerCheck
from tfq_bench.quant.state.temporal_cache import CachedProjection

if TYPE_CHECKING:
    from tfq_bench.quant.state.quantized_state import QuantizedLayer, QuantizedState
    from tfq_bench.types.networks import LoadedModel, Lowered

__all__ = ["LayerWatch", "watched_layers"]

_FLOAT_PRODUCTS = ("convolution", "conv1d", "conv2d", "mm", "addmm", "bmm", "baddbmm", "matmul")


class LayerWatch:
    """What `watched_layers` has seen."""

    def __init__(self) -> None:
        self.checks: dict[str, LayerCheck] = {}

    def add(self, check: LayerCheck) -> None:
        """Keeps a layer's worst call."""
        held = self.checks.get(check.layer)
        if held is None or not check.share <= held.share:
            self.checks[check.layer] = check

    @property
    def worst(self) -> LayerCheck | None:
        """The layer that came closest to its limit; None when nothing is quantized."""
        return max(self.checks.values(), key=lambda check: check.share, default=None)


@contextmanager
def watched_layers(
    loaded: LoadedModel,
    state: QuantizedState,
    lowered: Lowered,
    *,
    layers: Collection[str] | None = None,
) -> Iterator[LayerWatch]:
    """While it lasts, calls of `lowered.network` check each layer of `state` that they run.

    `lowered.step` must be set as for any call; the network is called eagerly.

    Args:
        layers: names of those to check, instead of all.

    Raises:
        LoweringError: names the layer: it is not in the network, did not run, gave another shape,
            another sum than the integers' or nothing finite, or multiplied in float although it
            was said to have a low-bit kernel.
    """
    fallbacks = {use.layer: use.fallback for use in lowered.kernels}
    modules = _modules(lowered.network)
    watch, spy, handles = LayerWatch(), _Spy(), []
    chosen = [name for name in state.layers if layers is None or name in layers]
    for name in chosen:
        module = modules.get(name)
        if module is None:
            raise LoweringError(
                f"layer '{name}' is not in the lowered network under its name, so its sums cannot "
                "be checked; a backend puts a module of its own where the layer was.",
                layer=name,
            )
        kernel = lowered.execution == "lowered" and fallbacks.get(name) is None
        original = find_layer(loaded.network, name)
        strict = kernel and all(part.activation for part in state.layers[name].parts)
        handles.append(module.register_forward_pre_hook(spy.entering(name if strict else None)))
        handles.append(
            module.register_forward_hook(
                _checker(state.layers, name, original, lowered, watch, spy, kernel),
                with_kwargs=True,
            )
        )
    try:
        with spy:
            yield watch
    finally:
        for handle in handles:
            handle.remove()
    silent = [name for name in chosen if name not in watch.checks]
    if silent:
        raise LoweringError(
            f"layer '{silent[0]}' did not run when the network was called"
            f"{f', nor did {len(silent) - 1} others' if len(silent) > 1 else ''}; a quantized "
            "layer is a module that the network calls.",
            layer=silent[0],
        )


def _modules(network: nn.Module) -> dict[str, nn.Module]:
    """Modules by name; where a projection is cached at some steps, what computes the others."""
    found = dict(network.named_modules())
    for name, module in list(found.items()):
        if isinstance(module, CachedProjection) and module.inner is not None:
            found[name] = module.inner
    return found


def _checker(
    layers: Mapping[str, QuantizedLayer],
    name: str,
    original: WeightedLayer,
    lowered: Lowered,
    watch: LayerWatch,
    spy: _Spy,
    kernel: bool,
) -> Callable[..., None]:
    def check(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], found: Any) -> None:
        floats = spy.leaving()
        if floats is not None:
            raise LoweringError(
                f"layer '{name}' was said to run a low-bit kernel and multiplies in float "
                f"({floats}); a fallback is listed with its reason.",
                layer=name,
            )
        x = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        call = ExactCall(layers[name], original, x, int(lowered.step.index[0]), kernel)
        watch.add(call.compare(found))

    return check


class _Spy(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees the operators that run inside one layer, and which multiply float by float."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # To keep its compiler away torch would import it, and with it what every installed
        # package registers for it: one damaged package, and nothing runs.
        return False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._layer: str | None = None
        self._found: str | None = None

    def entering(self, layer: str | None) -> Callable[[nn.Module, Any], None]:
        """A hook that begins to watch `layer`; None watches nothing."""

        def enter(module: nn.Module, args: Any) -> None:  # noqa: ARG001
            self._layer, self._found = layer, None

        return enter

    def leaving(self) -> str | None:
        """The float product that ran inside the layer, None when there was none."""
        found, self._layer, self._found = self._found, None, None
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs `func` and notes it."""
        if self._layer is not None and self._found is None:
            name = func.overloadpacket.__name__.removeprefix("_").removeprefix("mkldnn_")
            operands = [a for a in args if isinstance(a, Tensor)]
            if name in _FLOAT_PRODUCTS and all(
                a.is_floating_point() and a.element_size() >= 2 for a in operands
            ):
                self._found = f"{func} of {operands[0].dtype}"
        return func(*args, **(kwargs or {}))
