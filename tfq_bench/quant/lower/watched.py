"""Every layer of a lowered network against exact integer arithmetic, while the network runs.

A backend is believed in nothing: each call of a layer is compared with the sums that the state's
integers give for the very input of that call. Where codes meet codes the sums are integers, so
the kernel's are equal to them or it is wrong; see `_Call` for what rounding is allowed. A layer
that computes in full precision is off by many units, since its weights are no codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tfq_bench.errors import LoweringError
from tfq_bench.quant.layers import WeightedLayer, apply_layer, find_layer
from tfq_bench.quant.state.affine import per_channel
from tfq_bench.quant.state.temporal_cache import CachedProjection

if TYPE_CHECKING:
    from tfq_bench.quant.state.quantized_state import QuantizedLayer, QuantizedState
    from tfq_bench.types.networks import LoadedModel, Lowered

__all__ = ["LayerCheck", "LayerWatch", "watched_layers"]

BUDGET = 2**28
"""Multiply-accumulates spent on one call of one layer; a larger layer is seen on some channels."""

_ROUNDINGS = 2.0**-20
"""Sixteen roundings to float32: what scaling a sum, the parts and the bias take, with room."""

_FLOAT_PRODUCTS = ("convolution", "conv1d", "conv2d", "mm", "addmm", "bmm", "baddbmm", "matmul")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCheck:
    """How far one layer was from its exact sums.

    Args:
        error: root mean square difference over the root mean square of the exact output.
        share: of the limit that was used, at most 1 when the layer is right.
        kernel: whether the layer was said to run a low-bit kernel.
    """

    layer: str
    error: float
    share: float
    kernel: bool


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
        call = _Call(layers[name], original, x, int(lowered.step.index[0]), kernel)
        watch.add(call.compare(found))

    return check


class _Call:
    """The exact output of one call of a layer, and how far another may be from it.

    An integer sum must be hit: half a unit (s * s_w) is allowed, beside the roundings to float32
    of the epilogue and, once, to the output's own type. An input that falls on the border of two
    codes may take either. A fallback adds its integers in float32, which is exact below 2^24 and
    rounds above. A part with float activations has no integers; its error must stay, in root mean
    square, a tenth of what rounding the weight to its codes costs on average, |x| s_w / sqrt(12).
    """

    def __init__(
        self, layer: QuantizedLayer, original: WeightedLayer, x: Tensor, step: int, kernel: bool
    ) -> None:
        self._layer, self._kernel, self._geometry = layer, kernel, original
        self._where = f"at step {step}, in a call with {len(x)} rows"
        self._axis = 1 if layer.kind == "conv2d" else -1
        self._wide = (-1, 1, 1) if layer.kind == "conv2d" else (-1,)
        self._channels = _chosen(layer, original, x)
        total: Any = 0.0
        limit: Any = 0.0
        for part in layer.parts:
            weight = part.weight.double() - per_channel(part.zero_point, part.weight)
            weight = weight[self._channels].to(x.device)
            scale = part.scale[self._channels].to(x.device).double().reshape(self._wide)
            width = part.stop - part.start
            piece = x if len(layer.parts) == 1 else x.narrow(self._axis, part.start, width)
            table = part.activation
            if table is None:
                value = self._apply(piece.double(), weight) * scale
                spread = self._apply(piece.double().square(), torch.ones_like(weight))
                slack = 0.1 * scale * (spread / 12).sqrt()
                slack = slack + 4 * torch.finfo(x.dtype).eps * value.square().mean().sqrt()
            else:
                k = step if len(table.scale) > 1 else 0
                s = table.scale[k].to(x.device)
                z = int(table.zero_point[k])
                code = piece.float() * s.reciprocal()
                border = ((code - code.floor() - 0.5).abs() <= 2.0**-21 * code.abs()).double()
                code = (code.round() + z).clamp_(0, 2**table.bits - 1).double() - z
                sums = self._apply(code, weight)
                unit = scale * s.double()
                value = sums * unit
                slack = 0.5 * unit + _ROUNDINGS * value.abs()
                if bool(border.any()):
                    slack = slack + self._apply(border, weight.abs()) * unit
                if not kernel:
                    slack = slack + self._float_sums(code, weight) * unit
            total, limit = total + value, limit + slack
        if layer.bias is not None:
            bias = layer.bias[self._channels].to(x.device).double().reshape(self._wide)
            total, limit = total + bias, limit + _ROUNDINGS * bias.abs()
        self.expected: Tensor = total
        self.limit: Tensor = limit

    def compare(self, found: Any) -> LayerCheck:
        """How far `found`, all channels of the layer's output, is off.

        Raises:
            LoweringError: beyond the limit, of another shape or not finite.
        """
        name, axis = self._layer.name, self._axis
        shape = list(self.expected.shape)
        shape[axis] = self._layer.parts[0].weight.shape[0]
        if not isinstance(found, Tensor) or list(found.shape) != shape:
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise LoweringError(
                f"layer '{name}': expected shape {tuple(shape)}, found {what}.",
                layer=name,
                expected=tuple(shape),
                found=what,
            )
        if not bool(torch.isfinite(found).all()):
            raise LoweringError(f"layer '{name}' gives values that are not finite.", layer=name)
        chosen = torch.arange(shape[axis], device=found.device)[self._channels]
        value = found.index_select(axis, chosen).double()
        limit = self.limit + torch.finfo(found.dtype).eps * self.expected.abs()
        difference = (value - self.expected).abs()
        if all(part.activation is None for part in self._layer.parts):
            share = _rms(difference) / max(_rms(limit), math.ulp(0.0))
        else:
            share = float((difference / limit).max())
        error = _rms(difference) / max(_rms(self.expected), float(limit.min()))
        if share > 1:
            raise LoweringError(
                f"layer '{name}' does not compute the state's integers: {self._where}, its output "
                f"is off by {error:.2g} of its size, {share:.3g} times what rounding explains.",
                layer=name,
                found=error,
            )
        return LayerCheck(layer=name, error=error, share=share, kernel=self._kernel)

    def _apply(self, x: Tensor, weight: Tensor) -> Tensor:
        return apply_layer(self._geometry, x, weight, None)

    def _float_sums(self, code: Tensor, weight: Tensor) -> Tensor:
        """What float32 may lose of sums beyond 2^24, in units."""
        terms = weight[0].numel()
        sizes = self._apply(code.abs(), weight.abs())
        lost = 2.0**-23 * math.sqrt(terms) * sizes
        return torch.where(sizes < 2.0**24, torch.zeros_like(lost), lost)


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


def _chosen(layer: QuantizedLayer, original: WeightedLayer, x: Tensor) -> slice:
    """Output channels that are compared: all, or as many as `BUDGET` pays for, evenly spaced."""
    weight = layer.parts[0].weight
    if getattr(original, "groups", 1) != 1:
        return slice(None)
    positions = x.numel() // x.shape[1 if layer.kind == "conv2d" else -1]
    terms = sum(part.weight[0].numel() for part in layer.parts)
    step = math.ceil(positions * terms * weight.shape[0] / BUDGET)
    return slice(None, None, min(max(step, 1), weight.shape[0]))


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
