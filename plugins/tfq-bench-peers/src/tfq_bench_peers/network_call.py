"""A model's call of its network as a function of tensors, which engines outside torch can take.

`Model.predict` calls its network with positional and keyword arguments that are the model's own.
`NetworkCall` records one such call: which of them are tensors, and what comes back. From then on
the network is a function of these tensors, and what an engine returns is given back as the model
expects it; `EngineNetwork` is such an engine in the network's place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tfq_bench.api import LoweringError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tfq_bench.api import LoadedModel

__all__ = ["EngineNetwork", "NetworkCall"]


class NetworkCall:
    """One recorded call of `loaded.network`, made by `loaded.model.predict` for one row.

    Attributes:
        inputs: the tensors of the call, in the order of its arguments; one row each.
        traced: the network as a module of these tensors, without a copy of its weights.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        recorder = _Recorder(loaded.network)
        channels, height, width = loaded.model.latent_shape
        x = torch.zeros(1, channels, height, width, device=loaded.device)
        first = loaded.sampler.timesteps[0]
        dtype = torch.int64 if isinstance(first, int) else torch.float32
        timestep = torch.full((1,), first, dtype=dtype, device=loaded.device)
        condition = loaded.model.conditions(range(1), device=loaded.device)
        with torch.no_grad():
            loaded.model.predict(recorder, x, timestep, condition)
        self._inputs, self._outputs = recorder.inputs, recorder.outputs
        self.inputs = _tensors(pytree.tree_leaves(self._inputs))
        self.traced = _Traced(loaded.network, self._inputs)

    def captured(
        self,
        loaded: LoadedModel,
        x: Tensor,
        timestep: Tensor,
        condition: Mapping[str, Tensor],
    ) -> tuple[Tensor, ...]:
        """The tensors that the model passes to its network for these; the network is not run."""
        recorder = _Recorder(loaded.network, answer=self._outputs)
        loaded.model.predict(recorder, x, timestep, condition)
        return self.tensors(*recorder.inputs)

    def tensors(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, ...]:
        """The tensors among arguments; LoweringError when the call is not like the recorded one."""
        found, spec = pytree.tree_flatten((args, kwargs))
        if spec != pytree.tree_structure(self._inputs):
            raise LoweringError(
                "the network is called with other arguments than when it was recorded; a tool that "
                "runs a graph can take the recorded ones only."
            )
        return _tensors(found)

    def answer(self, outputs: Sequence[Tensor]) -> Any:
        """Tensors of an engine, as the network itself would have returned them."""
        leaves, spec = pytree.tree_flatten(self._outputs)
        given = iter(outputs)
        return pytree.tree_unflatten(
            [next(given) if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec
        )


class EngineNetwork(nn.Module):
    """Called like the torch network that an engine runs.

    Args:
        call: how the model calls its network.
        counts: how often each kernel ran, kept up to date.
        like: some parameter of the torch network; models look at its dtype and device.

    Attributes:
        kernels: of each layer that counts.
    """

    def __init__(self, call: NetworkCall, *, counts: dict[str, int], like: Tensor) -> None:
        super().__init__()
        self.kernels: list[str] = []
        self._call, self._counts = call, counts
        self.like = nn.Parameter(like.new_empty(0), requires_grad=False)

    def answer(self, outputs: Sequence[Tensor]) -> Any:
        """What the torch network would return, after a call in which every kernel ran once."""
        for kernel in self.kernels:
            self._counts[kernel] = self._counts.get(kernel, 0) + 1
        return self._call.answer(outputs)


class _Recorder(nn.Module):
    """Keeps the arguments of its call and what came back.

    Args:
        answer: returned instead of calling the network, cut to the rows of the call's tensors.
    """

    def __init__(self, network: nn.Module, answer: Any = None) -> None:
        super().__init__()
        self.network = network
        self._answer = answer
        self.inputs: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self.outputs: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.inputs = args, kwargs
        self.outputs = self.network(*args, **kwargs) if self._answer is None else self._answer
        return self.outputs


class _Traced(nn.Module):
    """A network as a function of the tensors of a recorded call."""

    def __init__(self, network: nn.Module, inputs: Any) -> None:
        super().__init__()
        self.network = network
        self._leaves, self._spec = pytree.tree_flatten(inputs)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        return _tensors(pytree.tree_leaves(self.network(*args, **kwargs)))


def _tensors(leaves: Sequence[Any]) -> tuple[Tensor, ...]:
    return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))
