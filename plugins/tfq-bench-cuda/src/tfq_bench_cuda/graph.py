"""The whole step in one CUDA graph: a network's call is captured once and replayed afterwards.

In eager execution the host launches a thousand kernels a step and is slower than the GPU. A graph
holds them all. It reads its arguments from tensors of its own, so a replay copies them there first,
and gives copies of its outputs. The sampler step is a tensor on the device anyway (`StepCursor`).

Each shape of arguments has a graph of its own. What somebody watches runs eagerly: with hooks on
modules inside, under a dispatch mode, with gradients. So does what cannot be captured, with the
reason. Hooks of the network itself run outside of its `forward`, so a pre-hook may compute what is
the same at every step, such as keys and values of a text, and leave it where the graph reads it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

from tfq_bench.api import StepCursor, printable

__all__ = ["Captured", "StepGraph"]

_log = logging.getLogger("tfq_bench.cuda")

_LIMIT = 4
"""Graphs that are kept: a run has few sizes of batch, and each graph holds its own buffers."""


class Captured:
    """One call in a CUDA graph, with the tensors that it reads and writes.

    Args:
        call: the network's own forward.
        leaves, structure: of its arguments, see `torch.utils._pytree`.
        executed: counts of kernels; they stay as they are.
        pool: memory of other graphs to share; they must not be replayed at the same time.

    Raises:
        Exception: the call cannot be captured; whatever torch says.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        leaves: Sequence[Any],
        structure: TreeSpec,
        executed: MutableMapping[str, int],
        stream: Any,
        pool: Any,
    ) -> None:
        before = dict(executed)
        # Tensors of inference mode could not be written to outside of it.
        with torch.inference_mode(False), torch.no_grad():
            self._inputs = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            args, kwargs = tree_unflatten(self._inputs, structure)
            current = torch.cuda.current_stream(stream.device)
            try:
                stream.wait_stream(current)
                with torch.cuda.stream(stream), _no_host_reads():
                    call(*args, **kwargs)
                current.wait_stream(stream)
                _restore(executed, before)
                self._graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(
                    self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"
                ):
                    self._outputs = call(*args, **kwargs)
                self._counts = Counter(executed) - Counter(before)
            finally:
                # A capture that fails leaves its stream the current one.
                torch.cuda.set_stream(current)
                _restore(executed, before)

    @property
    def pool(self) -> Any:
        """The memory of the graph, for others to share."""
        return self._graph.pool()

    def replay(self, leaves: Sequence[Any], executed: MutableMapping[str, int]) -> Any:
        """What the call gives for other arguments of the same shapes."""
        for place, leaf in zip(self._inputs, leaves, strict=True):
            if isinstance(place, Tensor):
                place.copy_(leaf)
        self._graph.replay()
        for name, count in self._counts.items():
            executed[name] = executed.get(name, 0) + count
        return tree_map(_cloned, self._outputs)


class _Key(NamedTuple):
    """What a graph is made for."""

    structure: TreeSpec
    leaves: tuple[Hashable, ...]
    version: Hashable


class StepGraph:
    """Stands in the place of a network's `forward`.

    Args:
        network: its blocks are fused already.
        device: of the network; calls with tensors of another one run eagerly.
        executed: shared by all layers; a replay adds what the captured call counted.
        refusal: why no graphs are made, None when they are.
        version: another value when what calls read, and no argument holds, lies elsewhere.
        prepare: called once, before the network is watched for the first time: layers then run one
            by one that else are fused.
    """

    def __init__(
        self,
        network: nn.Module,
        step: StepCursor,
        executed: MutableMapping[str, int],
        *,
        device: torch.device,
        refusal: str | None = None,
        version: Callable[[], Hashable] = lambda: 0,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self.network, self.step, self.executed, self.device = network, step, executed, device
        self.facts: dict[str, Any] = {"graphs": 0, "seconds": 0.0, "reason": refusal}
        self._call: Callable[..., Any] = network.forward
        self._captures, self._version, self._prepare = refusal is None, version, prepare
        self._index = step.index
        self._graphs: OrderedDict[_Key, Captured] = OrderedDict()
        self._refused: set[_Key] = set()
        self._stream: Any = None
        # These dictionaries are filled in place; asking each module would take a millisecond.
        self._hooks = [torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks]
        for module in list(network.modules())[1:]:
            self._hooks += [module._forward_hooks, module._forward_pre_hooks]

    def install(self) -> None:
        """Takes the place of the network's `forward`."""
        self.network.forward = self  # type: ignore[assignment]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the network's `forward` takes and gives."""
        watched = any(self._hooks)
        if watched and self._prepare is not None:
            prepare, self._prepare = self._prepare, None
            prepare()
        leaves, structure = tree_flatten((args, kwargs))
        if watched or not self._captures or self._seen() or not self._fits(leaves):
            return self._call(*args, **kwargs)
        key = _Key(structure, tuple(_described(leaf) for leaf in leaves), self._version())
        if key in self._refused:
            return self._call(*args, **kwargs)
        if key not in self._graphs:
            # Compiles what is missing and fills caches, such as border sums of this size. An
            # error here is the network's own.
            before = dict(self.executed)
            found = self._call(*args, **kwargs)
            self._add(key, leaves)
            if key in self._refused:
                return found
            # The first call gives what a replay gives, so that whoever checks it checks that.
            _restore(self.executed, before)
        self._graphs.move_to_end(key)
        return self._graphs[key].replay(leaves, self.executed)

    def _add(self, key: _Key, leaves: Sequence[Any]) -> None:
        begin = time.perf_counter()
        try:
            if self._stream is None:
                self._stream = torch.cuda.Stream(self.device)
            torch.cuda.synchronize(self.device)  # a graph that goes may still be running
            stale = [old for old in self._graphs if old.version != key.version]
            for old in stale or list(self._graphs)[: max(0, len(self._graphs) + 1 - _LIMIT)]:
                del self._graphs[old]
            pool = next((graph.pool for graph in self._graphs.values()), None)
            self._graphs[key] = Captured(
                self._call, leaves, key.structure, self.executed, self._stream, pool
            )
            self.facts["graphs"] += 1
        except Exception as error:
            self._refused.add(key)
            self.facts["reason"] = _reason(error)
            _log.warning("the step runs eagerly, not in a CUDA graph: %s", self.facts["reason"])
        self.facts["seconds"] += time.perf_counter() - begin

    def _seen(self) -> bool:
        """Whether something looks at single operators, or a graph would not see what changed."""
        return (
            torch.is_grad_enabled()
            or torch._C._len_torch_dispatch_stack() > 0
            or torch.is_autocast_enabled(self.device.type)
            or self.step.index is not self._index
            or (self.device.type == "cuda" and torch.cuda.is_current_stream_capturing())
        )

    def _fits(self, leaves: Sequence[Any]) -> bool:
        """Whether all tensors are on the network's device, and the rest can be compared."""
        return all(
            leaf.device.type == self.device.type
            if isinstance(leaf, Tensor)
            else isinstance(leaf, Hashable)
            for leaf in leaves
        )


def _described(leaf: Any) -> Hashable:
    """What a graph depends on: all of a tensor but its values, anything else by value."""
    if isinstance(leaf, Tensor):
        return (tuple(leaf.shape), leaf.stride(), leaf.dtype)
    return (type(leaf), leaf)


def _cloned(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _restore(executed: MutableMapping[str, int], counts: Mapping[str, int]) -> None:
    executed.clear()
    executed.update(counts)


@contextmanager
def _no_host_reads() -> Iterator[None]:
    """Operators that wait for the device raise RuntimeError, which a capture would do less well."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _reason(error: BaseException) -> str:
    """The first error of a chain: when a capture fails, ending it fails too."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {printable(error, 300)}"
