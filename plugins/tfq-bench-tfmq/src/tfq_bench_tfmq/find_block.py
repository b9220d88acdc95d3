"""The temporal block of a model, found by looking at what its network computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tfq_bench.api import QuantizationError
from tfq_bench.quant import find_layer
from tfq_bench_tfmq.block import ACTIVATIONS, TemporalBlock

if TYPE_CHECKING:
    from tfq_bench.api import LoadedModel

__all__ = ["find_temporal_block", "nearly_equal"]

TOLERANCE = 1e-4
"""Relative distance at which two tensors count as one; batched products differ in last bits."""

ROWS = 64
"""Timesteps per network call while the first input is recorded."""


@torch.no_grad()
def find_temporal_block(loaded: LoadedModel) -> TemporalBlock:
    """The temporal block of a model, checked against what its network really computes.

    The network is called a few times: without an image, as far as the first layer, for the table;
    and once for two images at two timesteps, to see what stands between the layers and that
    nothing but the timestep enters.

    Raises:
        QuantizationError: there is no temporal block, or a layer of it reads something that is
            not understood: the condition (class, prompt, guidance), the image, or an unknown
            function of the layers before.
    """
    topology, network = loaded.topology, loaded.network
    if not topology.time_mlp or not topology.time_features:
        found = "a time MLP" if topology.time_mlp else "no time MLP"
        raise QuantizationError(
            f"tfmq needs a network with a time MLP and time features, found {found} and "
            f"{len(topology.time_features)} features in its topology. Give these layers the "
            "roles 'time-mlp' and 'time-projection', or choose a method that needs none."
        )
    held = {*topology.time_mlp, *topology.time_features}
    names = tuple(layer.name for layer in topology.layers if layer.name in held)
    modules = {name: find_layer(network, name) for name in names}
    for name, module in modules.items():
        if not isinstance(module, nn.Linear):
            raise QuantizationError(
                f"temporal block: layer '{name}' must be Linear, found {type(module).__name__}."
            )
    seen = _probe(loaded, names)
    reads: dict[str, str | None] = {}
    before: dict[str, str] = {}
    for number, name in enumerate(names):
        reads[name], before[name] = _origin(modules, seen, names[:number], name)
    return TemporalBlock(
        layers=names,
        outputs=topology.time_features,
        reads=reads,
        before=before,
        table=_first_inputs(loaded, names[0]),
        weights={name: module.weight.detach().float() for name, module in modules.items()},
        biases={
            name: None if module.bias is None else module.bias.detach().float()
            for name, module in modules.items()
        },
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
        rows = inputs[0] if inputs else torch.empty(0)
        # The final layer of a DiT asks the first block's embedder again.
        again = all(one.shape == rows.shape and nearly_equal(one, rows) for one in inputs)
        if not again or rows.dim() != 2 or len(rows) != 4:
            raise QuantizationError(
                f"temporal block: layer '{name}' must run on one row per image, the same at every "
                f"run of a call, found inputs of shapes {shape} for 4 images."
            )
        if not nearly_equal(rows[::2], rows[1::2]):
            raise QuantizationError(
                f"temporal block: the input of layer '{name}' differs between two images at one "
                "timestep, so something besides the timestep enters before it: a class, a prompt's "
                "embedding or a size (as in SDXL), guidance, or the image. tfmq tabulates features "
                "that depend on the timestep alone. Use a method without a temporal block, or a "
                "topology whose time projections are those before the data enter."
            )
    return {name: inputs[0] for name, inputs in seen.items()}


def _origin(
    modules: Mapping[str, nn.Module],
    seen: Mapping[str, Tensor],
    earlier: tuple[str, ...],
    name: str,
) -> tuple[str | None, str]:
    """What a layer reads and through which activation, found by trying the layers before it."""
    if not earlier:
        return None, "nothing"
    found, table = seen[name], seen[earlier[0]]
    if found.shape == table.shape and nearly_equal(table, found):
        return None, "nothing"
    for source in reversed(earlier):
        given = modules[source](seen[source].to(next(modules[source].parameters()).dtype)).float()
        for key, activation in ACTIVATIONS.items():
            if given.shape == found.shape and nearly_equal(activation(given), found):
                return source, key
    raise QuantizationError(
        f"temporal block: the input of layer '{name}' (shape {tuple(found.shape)}) is not "
        f"understood. Expected the output of one of {', '.join(earlier[-3:])} through one of "
        f"{', '.join(ACTIVATIONS)}; found something else. Something is added in between (a class "
        "or text embedding), and the topology lists the layer among those that read the timestep "
        "alone."
    )


def nearly_equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are one, but for the last bits that batched products differ in."""
    return bool((a - b).norm() <= TOLERANCE * b.norm())
