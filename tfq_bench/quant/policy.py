"""Which layers get how many bits: a declared object, by role, never by index or substring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tfq_bench.border import FULL_PRECISION, Role, Scheme, Topology
from tfq_bench.errors import QuantizationError, nearest

__all__ = ["UNIFORM", "Exempt", "LayerBits", "Policy", "find_policy", "resolve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBits:
    """Bits of a quantized layer: weights 2 to 8, activations 2 to 8 or 32 (float)."""

    wbits: int
    abits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exempt:
    """A layer that stays float, and why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What differs from the bits that a scheme asks for.

    Args:
        name: as it stands in `Scheme.policy`.
        wbits, abits: bits by role, in place of the asked ones. Activations that are asked to
            stay float stay float.
        exempt: roles that stay float, with the reason.
        attention: how the products inside attention are computed.
    """

    name: str
    wbits: Mapping[Role, int] = field(default_factory=dict)
    abits: Mapping[Role, int] = field(default_factory=dict)
    exempt: Mapping[Role, str] = field(default_factory=dict)
    attention: Literal["float"] = "float"


UNIFORM = Policy(name="uniform", wbits={"input": 8, "output": 8}, abits={"input": 8, "output": 8})
"""The asked bits everywhere, 8 for input and output layer; all methods are compared under it."""


def find_policy(name: str, policies: Iterable[Policy] = (UNIFORM,)) -> Policy:
    """The policy called `name` out of `policies`.

    Raises:
        QuantizationError: there is none; offers the nearest names.
    """
    known = {policy.name: policy for policy in policies}
    if name not in known:
        raise QuantizationError(f"unknown layer policy '{name}'; {nearest(name, known)}")
    return known[name]


def resolve(policy: Policy, topology: Topology, scheme: Scheme) -> dict[str, LayerBits | Exempt]:
    """The bits or exemption of every layer, in execution order.

    Raises:
        QuantizationError: bits outside of 2 to 8 (activations also 32).
    """
    resolved: dict[str, LayerBits | Exempt] = {}
    for layer in topology.layers:
        if layer.role in policy.exempt:
            resolved[layer.name] = Exempt(reason=policy.exempt[layer.role])
            continue
        wbits = policy.wbits.get(layer.role, scheme.wbits)
        abits = scheme.abits
        if abits != FULL_PRECISION:
            abits = policy.abits.get(layer.role, abits)
        if not 2 <= wbits <= 8 or not (2 <= abits <= 8 or abits == FULL_PRECISION):
            raise QuantizationError(
                f"policy '{policy.name}', layer '{layer.name}' ({layer.role}): expected weights "
                f"of 2 to 8 bits and activations of 2 to 8 or {FULL_PRECISION}, found "
                f"W{wbits}A{abits}."
            )
        resolved[layer.name] = LayerBits(wbits=wbits, abits=abits)
    return resolved
