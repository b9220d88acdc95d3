"""A quantized network as data: integers, scales, zero points and tables, nothing executable.

This is the border between methods and backends. On disk (`tfq_bench.quant.state.storage`) codes are
packed at their true width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tfq_bench.errors import QuantizationError
from tfq_bench.quant.state.packing import packed_size
from tfq_bench.quant.state.qparams import (
    ActivationQParams,
    AttentionQParams,
    check_bits,
    check_parameters,
)
from tfq_bench.quant.state.sampler_correction import SamplerCorrection
from tfq_bench.quant.state.temporal_cache import TemporalCache, unused_layers
from tfq_bench.types import FULL_PRECISION, LayerKind, Scheme, Topology

__all__ = [
    "LayerPart",
    "QuantizedLayer",
    "QuantizedState",
]

_KINDS = {"conv2d": 4, "linear": 2}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerPart:
    """The input channels [start, stop) of a layer; an unsplit layer has one part.

    Args:
        weight: uint8 codes in [0, 2^wbits - 1], shape of the weight's slice:
            `(C_out, stop - start, kh, kw)` or `(C_out, stop - start)`; of a grouped convolution
            the whole weight `(C_out, C_in/groups, kh, kw)`.
        scale: float32 `[C_out]`; w^ = scale * (code - zero_point).
        zero_point: int32 `[C_out]`; 2^(wbits-1) for symmetric weights.
        activation: parameters of this part of the input, None for float activations.
    """

    start: int
    stop: int
    weight: Tensor
    scale: Tensor
    zero_point: Tensor
    activation: ActivationQParams | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuantizedLayer:
    """One convolution or linear layer in integers.

    Args:
        name: its name in `network.named_modules()`.
        wbits: 2 to 8.
        parts: consecutive slices of the input channels, covering all of them.
        bias: float32 `[C_out]`, added once.

    Raises:
        QuantizationError: parts that do not fit together, or tensors of a wrong type or range.
    """

    name: str
    kind: LayerKind
    wbits: int
    parts: tuple[LayerPart, ...]
    bias: Tensor | None = None

    def __post_init__(self) -> None:
        where = f"layer '{self.name}'"
        check_bits(self.wbits, f"{where}: weights")
        if not self.parts or self.kind not in _KINDS:
            raise QuantizationError(
                f"{where}: expected at least one part and a kind of {', '.join(_KINDS)}, found "
                f"{len(self.parts)} parts and {self.kind!r}."
            )
        position = 0
        for part in self.parts:
            if part.start != position or part.stop <= part.start:
                raise QuantizationError(
                    f"{where}: a part must begin at input channel {position} and hold at least "
                    f"one, found [{part.start}, {part.stop})."
                )
            position = part.stop
            self._check_part(part, where)

    def _check_part(self, part: LayerPart, where: str) -> None:
        weight = part.weight
        if weight.dtype != torch.uint8 or weight.dim() != _KINDS[self.kind]:
            raise QuantizationError(
                f"{where}: weight codes must be uint8 of {_KINDS[self.kind]} dimensions, found "
                f"{weight.dtype} of shape {tuple(weight.shape)}."
            )
        if len(self.parts) > 1 and weight.shape[1] != part.stop - part.start:
            raise QuantizationError(
                f"{where}: part [{part.start}, {part.stop}) needs {part.stop - part.start} input "
                f"channels of weight, found {weight.shape[1]}."
            )
        if weight.numel() and int(weight.max()) >= 1 << self.wbits:
            raise QuantizationError(
                f"{where}: codes of {self.wbits} bits must be at most {(1 << self.wbits) - 1}, "
                f"found {int(weight.max())}."
            )
        channels = weight.shape[0]
        if self.bias is not None and (
            self.bias.dtype != torch.float32 or not bool(torch.isfinite(self.bias).all())
        ):
            raise QuantizationError(
                f"{where}: the bias must be float32 and finite, found {self.bias.dtype}"
                f"{'' if bool(torch.isfinite(self.bias).all()) else ' with other values'}."
            )
        if part.scale.shape != (channels,) or (
            self.bias is not None and self.bias.shape != (channels,)
        ):
            raise QuantizationError(
                f"{where}: scales and bias must have shape ({channels},), found "
                f"{tuple(part.scale.shape)}."
            )
        check_parameters(part.scale, part.zero_point, self.wbits, f"{where}: weight")

    @property
    def abits(self) -> int:
        """Bits of the activations, the widest of the parts; 32 when float."""
        tables = [part.activation for part in self.parts]
        return max(FULL_PRECISION if table is None else table.bits for table in tables)

    @property
    def packed_bytes(self) -> int:
        """Bytes as stored: packed codes, scales, zero points, activation tables and bias."""
        size = 0 if self.bias is None else 4 * self.bias.numel()
        for part in self.parts:
            size += packed_size(part.weight.numel(), self.wbits) + 5 * part.scale.numel()
            size += part.activation.packed_bytes if part.activation is not None else 0
        return size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuantizedState:
    """What a quantizer returns. Full precision is None, or a state without layers.

    Args:
        model: digest of the model it was made from.
        method: name of the method.
        timesteps: the sampler's, in execution order; per-step tables have this length.
        layers: by name, in execution order.
        exempt: layers that stay float, with the reason.
        cache: time projections whose output is looked up, by name. One that is cached at every
            step is neither in `layers` nor exempt, since it is never computed; one that is cached
            at some steps is in one of them.
        half: exempt layers whose weights and bias are stored and rounded to float16; what they
            compute stays float32.
        attention: tables of the attentions whose products are quantized, by name; the others
            are float.
        biases: of exempt layers, in place of the model's: float32 `[C_out]` by name. Float32 also
            where the layer's weights are in float16, as the biases of quantized layers are.
        correction: what the sampler takes out of the network's predictions; None for nothing. No
            backend need know of it.

    Raises:
        QuantizationError: a layer under another's name, both quantized and exempt, or with a
            per-step table or cache of another length than `timesteps`; a correction of another
            length; a cache that contradicts `layers` and `exempt`; a float16 layer, or one with a
            bias in `biases`, that is not exempt; such a bias of another type, or not finite.
    """

    model: str
    method: str
    scheme: Scheme
    timesteps: tuple[int | float, ...]
    layers: Mapping[str, QuantizedLayer]
    exempt: Mapping[str, str]
    cache: Mapping[str, TemporalCache] = field(default_factory=dict)
    half: tuple[str, ...] = ()
    attention: Mapping[str, AttentionQParams] = field(default_factory=dict)
    biases: Mapping[str, Tensor] = field(default_factory=dict)
    correction: SamplerCorrection | None = None

    def __post_init__(self) -> None:
        self._check_layers()
        self._check_cache()
        self._check_biases()
        strangers = [name for name in self.half if name not in self.exempt]
        if strangers or len(set(self.half)) != len(self.half):
            raise QuantizationError(
                "layers in float16 must be exempt and listed once, found "
                f"{strangers or list(self.half)}."
            )
        if self.correction is not None and len(self.correction.slope) != len(self.timesteps):
            raise QuantizationError(
                f"the sampler's correction must have {len(self.timesteps)} rows (one per "
                f"timestep), found {len(self.correction.slope)}."
            )

    def _check_layers(self) -> None:
        for name, layer in self.layers.items():
            if name != layer.name or name in self.exempt:
                raise QuantizationError(
                    f"layer '{name}' must be listed once and under its own name, found "
                    f"'{layer.name}'{' and an exemption' if name in self.exempt else ''}."
                )
            for part in layer.parts:
                if part.activation is not None:
                    self._check_length(part.activation, f"layer '{name}'")
        for name, tables in self.attention.items():
            if name != tables.name:
                raise QuantizationError(
                    f"attention '{name}' must be listed under its own name, found '{tables.name}'."
                )
            for table in tables.by_point().values():
                self._check_length(table, f"attention '{name}'")

    def _check_length(self, table: ActivationQParams, where: str) -> None:
        if len(table.scale) not in (1, len(self.timesteps)):
            raise QuantizationError(
                f"{where}: an activation table has 1 or {len(self.timesteps)} "
                f"entries (one per timestep), found {len(table.scale)}."
            )

    def _check_cache(self) -> None:
        for name, cache in self.cache.items():
            if name != cache.name or len(cache.values) != len(self.timesteps):
                raise QuantizationError(
                    f"cache of '{name}': expected it under its own name and with "
                    f"{len(self.timesteps)} rows (one per timestep), found '{cache.name}' with "
                    f"{len(cache.values)}."
                )
            if (name in self.layers or name in self.exempt) == cache.complete:
                raise QuantizationError(
                    f"cache of '{name}' covers {int(cache.selected.sum())} of "
                    f"{len(self.timesteps)} steps: the layer must be listed as quantized or exempt "
                    "exactly when some step is left to it."
                )

    def _check_biases(self) -> None:
        for name, bias in self.biases.items():
            if name not in self.exempt:
                raise QuantizationError(
                    f"bias of '{name}': only exempt layers have theirs apart from `layers`, found "
                    "one that is quantized or unknown."
                )
            finite = bool(torch.isfinite(bias).all())
            if bias.dtype != torch.float32 or bias.dim() != 1 or not finite:
                raise QuantizationError(
                    f"bias of exempt layer '{name}' must be float32, finite and of one dimension, "
                    f"found {bias.dtype} {tuple(bias.shape)}{'' if finite else ', not finite'}."
                )

    @property
    def packed_bytes(self) -> int:
        """Bytes of all tensors as `storage.save_state` writes them."""
        layers = sum(layer.packed_bytes for layer in self.layers.values())
        caches = sum(cache.packed_bytes for cache in self.cache.values())
        attention = sum(tables.packed_bytes for tables in self.attention.values())
        biases = sum(bias.nbytes for bias in self.biases.values())
        correction = 0 if self.correction is None else self.correction.packed_bytes
        return layers + caches + attention + biases + correction

    def dropped(self, topology: Topology) -> frozenset[str]:
        """The layers that are never computed: neither quantized nor exempt, see `cache`."""
        return unused_layers(topology, self.cache) - set(self.layers) - set(self.exempt)
