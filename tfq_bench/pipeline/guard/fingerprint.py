"""What a loaded model was, to see after each piece of foreign code that it still is.

Results must not depend on what ran before in the same process, so a model that a plugin changed
must never be used again. Held is what can be reached from network, model, sampler and topology, see
`Snapshot`; the code of their classes is watched by `Functions`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING

from tfq_bench.pipeline.guard.snapshot import Node, Same, Snapshot

if TYPE_CHECKING:
    from tfq_bench.types.networks import LoadedModel

__all__ = ["Fingerprint"]

_PARTS = ("network", "model", "sampler", "topology")


class Fingerprint:
    """A loaded model at one moment."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._taken = self._take()

    @property
    def classes(self) -> frozenset[type]:
        """Classes of all objects that make up the model, and those that they inherit from."""
        return frozenset(self._taken.classes)

    def changes(self) -> list[str]:
        """What is no longer as it was, by name.

        What a model loads later, and what its own methods count or cache, is taken in as it is.
        """
        now = self._take()
        found = [
            name
            for where, node in self._taken.nodes.items()
            if where in now.nodes
            for name in _changes(where, node, now.nodes[where])
        ]
        if not found:
            self._taken = now
        whole = set(found)
        return [name for name in dict.fromkeys(found) if name.rpartition(".")[0] not in whole]

    def _take(self) -> Snapshot:
        loaded = self._loaded
        model, sampler = loaded.model, loaded.sampler
        snapshot = Snapshot({part: getattr(loaded, part) for part in _PARTS})
        # Properties as well: whatever they compute it from.
        told: dict[str, dict[Hashable, Hashable]] = {
            "model": {"latent_shape": tuple(model.latent_shape), "dtype": model.dtype},
            "sampler": {
                "timesteps": tuple((type(t), t) for t in sampler.timesteps),
                "stochastic": sampler.stochastic,
            },
        }
        for where, values in told.items():
            snapshot.nodes.setdefault(where, Node(None, {})).held.update(values)
        parts: dict[Hashable, Hashable] = {part: Same(getattr(loaded, part)) for part in _PARTS}
        snapshot.nodes["loaded"] = Node(None, {**parts, "device": loaded.device})
        return snapshot


def _changes(where: str, was: Node, now: Node) -> Iterator[str]:
    if was.kind != now.kind:
        yield where
        return
    for name, value in was.held.items():
        if name not in now.held:
            if name not in was.lazy:
                yield f"{where}.{_text(name)}"
        elif _differ(value, now.held[name], own=name in was.own):
            yield f"{where}.{_text(name)}"
    for name in now.held:
        if name not in was.held and name in now.counted:
            yield f"{where}.{_text(name)}"


def _differ(one: Hashable, other: Hashable, *, own: bool) -> bool:
    if own and (one is None or other is None or type(one) is type(other) is int):
        return False
    if type(one) is not type(other):
        return True
    return one is not other and one != other and not (one != one and other != other)


def _text(name: Hashable) -> str:
    return name if isinstance(name, str) else repr(name)
