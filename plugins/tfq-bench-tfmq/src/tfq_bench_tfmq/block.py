"""The Temporal Information Block (TIB) of a network: all that turns a timestep into features.

    h(t) = time MLP of sinusoid(t)        emb[t, i] = g_i(h(t)) = Linear_i(act(h(t)))

The layers lie apart in the network, the projections inside its residual blocks. Since t takes
finitely many values, the whole block is a function of a table with one row per sampler step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfq_bench.api import QuantizationError
from tfq_bench.quant import find_layer

if TYPE_CHECKING:
    from tfq_bench.api import LoadedModel

__all__ = ["OnInput", "TemporalBlock", "diffusers_projections", "find_temporal_block"]

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

TOLERANCE = 1e-4
"""Relative distance at which two tensors count as one; batched products differ in last bits."""

ROWS = 64
"""Timesteps per network call while the first input is recorded."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TemporalBlock:
    """The block's layers in execution order, and its input at every sampler step.

    Args:
        mlp: layers of h; each reads what the one before it gives.
        projections: the layers Linear_i; all read h.
        before: name of the activation in front of each layer, a key of `ACTIVATIONS`.
        table: float32 `[T, C]`, input of the first layer at every step of the sampler.
        weights: float32 `(C_out, C_in)`, full precision, by layer.
        biases: float32 `[C_out]`, or None, by layer.
    """

    mlp: tuple[str, ...]
    projections: tuple[str, ...]
    before: Mapping[str, str]
    table: Tensor
    weights: Mapping[str, Tensor]
    biases: Mapping[str, Tensor | None]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers, in execution order."""
        return (*self.mlp, *self.projections)

    def activate(self, name: str, x: Tensor) -> Tensor:
        """The input of layer `name` when the layer before it has given x."""
        return ACTIVATIONS[self.before[name]](x)

    def hidden(
        self, weights: Mapping[str, Tensor] | None = None, on_input: OnInput | None = None
    ) -> Tensor:
        """The MLP's output h at every step, float32 `[T, C_h]`; arguments as in `features`."""
        h = self.table
        for name in self.mlp:
            h = self._apply(name, h, weights, on_input)
        return h

    def features(
        self, weights: Mapping[str, Tensor] | None = None, on_input: OnInput | None = None
    ) -> dict[str, Tensor]:
        """The temporal features emb[:, i], float32 `[T, C_i]` by projection. Differentiable.

        Args:
            weights: by layer, in place of full-precision ones.
            on_input: applied to each layer's input, in execution order.
        """
        h = self.hidden(weights, on_input)
        return {name: self._apply(name, h, weights, on_input) for name in self.projections}

    def _apply(
        self,
        name: str,
        x: Tensor,
        weights: Mapping[str, Tensor] | None,
        on_input: OnInput | None,
    ) -> Tensor:
        x = self.activate(name, x)
        if on_input is not None:
            x = on_input(name, x)
        weight = self.weights[name] if weights is None or name not in weights else weights[name]
        return F.linear(x, weight, self.biases[name])


@torch.no_grad()
def find_temporal_block(loaded: LoadedModel) -> TemporalBlock:
    """The temporal block of a model, checked against what its network really computes.

    The network is called a few times: without an image, as far as the first layer, for the table;
    and once for two images at two timesteps, to see what stands between the layers and that
    nothing but the timestep enters.

    Raises:
        QuantizationError: there is no temporal block, or a layer of it reads something that is
            not understood: the condition (class, prompt, guidance), the image, or an unknown
            function of the layer before.
    """
    topology, network = loaded.topology, loaded.network
    if not topology.time_mlp or not topology.time_projections:
        found = "a time MLP" if topology.time_mlp else "no time MLP"
        raise QuantizationError(
            f"tfmq needs a network with a time MLP and time projections, found {found} and "
            f"{len(topology.time_projections)} projections in its topology. Give these layers the "
            "roles 'time-mlp' and 'time-projection', or choose a method that needs none."
        )
    names = (*topology.time_mlp, *topology.time_projections)
    modules = {name: find_layer(network, name) for name in names}
    for name, module in modules.items():
        if not isinstance(module, nn.Linear):
            raise QuantizationError(
                f"temporal block: layer '{name}' must be Linear, found {type(module).__name__}."
            )
    seen = _probe(loaded, names)
    before = {topology.time_mlp[0]: "nothing"}
    for previous, name in itertools.pairwise(topology.time_mlp):
        before[name] = _between(modules, seen, previous, name)
    for name in topology.time_projections:
        before[name] = _between(modules, seen, topology.time_mlp[-1], name)
    return TemporalBlock(
        mlp=topology.time_mlp,
        projections=topology.time_projections,
        before=before,
        table=_first_inputs(loaded, topology.time_mlp[0]),
        weights={name: module.weight.detach().float() for name, module in modules.items()},
        biases={
            name: None if module.bias is None else module.bias.detach().float()
            for name, module in modules.items()
        },
    )


def diffusers_projections(unet: nn.Module) -> tuple[str, ...]:
    """Names of the time projections of a diffusers U-Net, in execution order.

    Goes by type, not by name: the `time_emb_proj` of every residual block. `up_blocks` are
    registered before `mid_block` there, but run after it.
    """
    order = ("down_blocks", "mid_block", "up_blocks")
    return tuple(
        f"{name}.time_emb_proj"
        for stage in order
        for name, module in unet.named_modules()
        if name.split(".")[0] == stage
        and isinstance(getattr(module, "time_emb_proj", None), nn.Linear)
    )


class _Reached(Exception):
    """The first layer has got its input; the rest of the network need not run."""


def _first_inputs(loaded: LoadedModel, first: str) -> Tensor:
    """What the first layer reads at every sampler step, float32 `[T, C]`."""
    seen: list[Tensor] = []

    def stop(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].detach().float().clone())
        raise _Reached

    handle = find_layer(loaded.network, first).register_forward_pre_hook(stop)
    timesteps = torch.tensor(loaded.sampler.timesteps, device=loaded.device)
    try:
        for rows in torch.split(timesteps, ROWS):
            x = torch.zeros((len(rows), *loaded.model.latent_shape), device=loaded.device)
            condition = loaded.model.conditions([0] * len(rows), device=loaded.device)
            try:
                loaded.model.predict(loaded.network, x, rows, condition)
            except _Reached:
                continue
    finally:
        handle.remove()
    table = torch.cat(seen)
    if table.shape[:1] != timesteps.shape or table.dim() != 2:
        raise QuantizationError(
            f"temporal block: layer '{first}' must read one row per timestep, found shape "
            f"{tuple(table.shape)} for {len(timesteps)} timesteps."
        )
    return table


def _probe(loaded: LoadedModel, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Each layer's input `[4, C]` for two images at the first, then at the last timestep."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}

    def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, inputs: seen[name].append(inputs[0].detach().float())

    first, last = loaded.sampler.timesteps[0], loaded.sampler.timesteps[-1]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((4, *loaded.model.latent_shape), generator=generator).to(loaded.device)
    timestep = torch.tensor([first, first, last, last], device=loaded.device)
    condition = loaded.model.conditions([0, 1, 0, 1], device=loaded.device)
    handles = [
        find_layer(loaded.network, name).register_forward_pre_hook(keep(name)) for name in names
    ]
    try:
        loaded.model.predict(loaded.network, x, timestep, condition)
    finally:
        for handle in handles:
            handle.remove()
    for name, inputs in seen.items():
        shape = [tuple(one.shape) for one in inputs]
        if len(inputs) != 1 or inputs[0].dim() != 2 or len(inputs[0]) != 4:
            raise QuantizationError(
                f"temporal block: layer '{name}' must run once per call on one row per image, "
                f"found inputs of shapes {shape} for 4 images."
            )
        rows = inputs[0]
        if not _close(rows[::2], rows[1::2]):
            raise QuantizationError(
                f"temporal block: the input of layer '{name}' differs between two images at one "
                "timestep, so something besides the timestep enters before it: a class, a prompt's "
                "embedding or a size (as in SDXL), guidance, or the image. tfmq tabulates features "
                "that depend on the timestep alone. Use a method without a temporal block, or a "
                "topology whose time projections are those before the data enter."
            )
    return {name: inputs[0] for name, inputs in seen.items()}


def _between(
    modules: Mapping[str, nn.Module], seen: Mapping[str, Tensor], previous: str, name: str
) -> str:
    """Name of the activation between two layers, found by trying."""
    given = modules[previous](seen[previous])
    for key, activation in ACTIVATIONS.items():
        if given.shape == seen[name].shape and _close(activation(given), seen[name]):
            return key
    raise QuantizationError(
        f"temporal block: the input of layer '{name}' is not understood. Expected the output of "
        f"'{previous}' (shape {tuple(given.shape)}) through one of {', '.join(ACTIVATIONS)}; found "
        f"something else of shape {tuple(seen[name].shape)}. Something is added in between (a "
        "class or text embedding, as in SDXL), or the topology's time MLP is not a chain."
    )


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).norm() <= TOLERANCE * b.norm())
