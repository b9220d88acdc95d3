"""The Temporal Information Block (TIB) of a network: all that turns a timestep into features.

    h(t) = time MLP of sinusoid(t)        emb[t, i] = g_i(h(t)) = Linear_i(act(h(t)))

The layers lie apart in the network, the projections inside its residual blocks. Since t takes
finitely many values, the whole block is a function of a table with one row per sampler step.

Where a condition is added between h and g_i (SDXL's text and sizes, the class in DiT), g_i is no
function of t any more. The block then ends with h, whose output is what can be tabulated; there are
several h where blocks have embedders of their own. The projections are left to
`conditional_projections`. How arXiv:2407.19547 treats SDXL is not known to us.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn import functional as F

__all__ = ["ACTIVATIONS", "OnInput", "TemporalBlock"]

OnInput = Callable[[str, Tensor], Tensor]
"""Given a layer's name and its input `[T, C]`; returns what the layer reads in its place."""

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda x: x,
    "SiLU": F.silu,
    "GELU": F.gelu,
    "GELU (tanh)": lambda x: F.gelu(x, approximate="tanh"),
    "ReLU": F.relu,
    "Mish": F.mish,
}
"""What may stand between two layers of the block."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TemporalBlock:
    """The block's layers in execution order, and its input at every sampler step.

    Args:
        layers: names in execution order.
        outputs: those whose output is a temporal feature: the projections, or the last layers of h.
        reads: the layer whose output each layer reads; None for those that read the table.
        before: name of the activation in front of each layer, a key of `ACTIVATIONS`.
        table: float32 `[T, C]`, input of the first layers at every step of the sampler.
        weights: float32 `(C_out, C_in)`, full precision, by layer.
        biases: float32 `[C_out]`, or None, by layer.
    """

    layers: tuple[str, ...]
    outputs: tuple[str, ...]
    reads: Mapping[str, str | None]
    before: Mapping[str, str]
    table: Tensor
    weights: Mapping[str, Tensor]
    biases: Mapping[str, Tensor | None]

    def activate(self, name: str, x: Tensor) -> Tensor:
        """The input of layer `name` when the layer that it reads has given x."""
        return ACTIVATIONS[self.before[name]](x)

    def features(
        self, weights: Mapping[str, Tensor] | None = None, on_input: OnInput | None = None
    ) -> dict[str, Tensor]:
        """The temporal features, float32 `[T, C_i]` by name in `outputs`. Differentiable.

        Args:
            weights: by layer, in place of full-precision ones.
            on_input: applied to each layer's input, in execution order.
        """
        values: dict[str, Tensor] = {}
        for name in self.layers:
            source = self.reads[name]
            x = self.activate(name, self.table if source is None else values[source])
            if on_input is not None:
                x = on_input(name, x)
            given = weights is not None and name in weights
            weight = weights[name] if weights is not None and given else self.weights[name]
            values[name] = F.linear(x, weight, self.biases[name])
        return {name: values[name] for name in self.outputs}

    def in_half(self, names: Collection[str]) -> TemporalBlock:
        """The same block, weights and biases of the layers `names` rounded to float16."""
        chosen = [name for name in self.layers if name in names]
        biases = {name: bias for name in chosen if (bias := self.biases[name]) is not None}
        return replace(
            self,
            weights={**self.weights, **{n: self.weights[n].half().float() for n in chosen}},
            biases={**self.biases, **{n: bias.half().float() for n, bias in biases.items()}},
        )

    def ties(self) -> tuple[int, ...]:
        """By output, the number of the first output that it is computed from, else its own.

        Where one feature is computed from another (PixArt-Sigma), a cache in place of the first
        would change what the second is computed from.
        """
        first: dict[str, str | None] = {}
        for name in self.layers:
            source = self.reads[name]
            own = name if name in self.outputs else None
            first[name] = own if source is None else first[source] or own
        return tuple(self.outputs.index(first[name] or name) for name in self.outputs)
