"""Which layers get how many bits: a declared object, by role, never by index or substring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tfq_bench.errors import QuantizationError, nearest
from tfq_bench.types import FULL_PRECISION, Role, Scheme, Topology

__all__ = [
    "POLICIES",
    "UNIFORM",
    "UNIFORM_IO16",
    "UNIFORM_TEMPORAL16",
    "AttentionBits",
    "Exempt",
    "LayerBits",
    "Policy",
    "attention_bits",
    "exemptions",
    "find_policy",
    "resolve",
]

HALF = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBits:
    """Bits of a quantized layer: weights 2 to 8, activations 2 to 8 or 32 (float)."""

    wbits: int
    abits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exempt:
    """A layer that stays float, and why.

    Args:
        bits: 32, or 16 when its weight and bias are kept in float16 (see `QuantizedState.half`).
    """

    reason: str
    bits: int = FULL_PRECISION


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionBits:
    """Bits of what the two products inside attention multiply, 2 to 8.

    Args:
        operands: of queries, keys and values.
        softmax: of the attention weights.
    """

    operands: int = 8
    softmax: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What differs from the bits that a scheme asks for.

    Args:
        name: as it stands in `Scheme.policy`.
        wbits, abits: bits by role, in place of the asked ones. Activations that are asked to
            stay float stay float.
        exempt: roles that stay float, with the reason.
        half: exempt roles that are kept in float16 instead of float32.
        attention: bits inside attention, None for float; float too when the scheme's activations
            are. Which attention it holds for, see `Topology.attention`.

    Raises:
        QuantizationError: a role in `half` that is not exempt.
    """

    name: str
    wbits: Mapping[Role, int] = field(default_factory=dict)
    abits: Mapping[Role, int] = field(default_factory=dict)
    exempt: Mapping[Role, str] = field(default_factory=dict)
    half: frozenset[Role] = frozenset()
    attention: AttentionBits | None = None

    def __post_init__(self) -> None:
        if not self.half <= set(self.exempt):
            raise QuantizationError(
                f"policy '{self.name}': roles kept in float16 must be exempt, found "
                f"{sorted(self.half - set(self.exempt))}."
            )


UNIFORM = Policy(name="uniform", wbits={"input": 8, "output": 8}, abits={"input": 8, "output": 8})
"""The asked bits everywhere, 8 for input and output layer."""

UNIFORM_TEMPORAL16 = Policy(
    name="uniform-temporal16",
    wbits=UNIFORM.wbits,
    abits=UNIFORM.abits,
    exempt={
        "time-mlp": "temporal layers are kept in 16 bits",
        "time-projection": "temporal layers are kept in 16 bits",
    },
    half=frozenset({"time-mlp", "time-projection"}),
)
"""`uniform`, but the temporal layers are kept in float16: what a method for them must beat."""

UNIFORM_IO16 = Policy(
    name="uniform-io16",
    exempt={
        "input": "the input layer is kept in 16 bits",
        "output": "the output layer is kept in 16 bits",
    },
    half=frozenset({"input", "output"}),
)
"""The asked bits everywhere, but input and output layer are kept in float16: the one under which
methods are compared. These are under 1 % of the multiply-accumulates, yet at 8 bits the rounding of
the output layer hides every difference between methods."""

POLICIES = (UNIFORM, UNIFORM_TEMPORAL16, UNIFORM_IO16)
"""The policies that every quantizer may offer; those of a paper are in its method's plugin."""


def find_policy(name: str, policies: Iterable[Policy] = POLICIES) -> Policy:
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
            resolved[layer.name] = Exempt(
                reason=policy.exempt[layer.role],
                bits=HALF if layer.role in policy.half else FULL_PRECISION,
            )
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


def exemptions(plan: Mapping[str, LayerBits | Exempt]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The fields `exempt` and `half` of a state made after `plan`, in execution order."""
    exempt = {name: bits for name, bits in plan.items() if isinstance(bits, Exempt)}
    reasons = {name: bits.reason for name, bits in exempt.items()}
    return reasons, tuple(name for name, bits in exempt.items() if bits.bits == HALF)


def attention_bits(policy: Policy, scheme: Scheme) -> AttentionBits | None:
    """The bits inside attention, None for float: unless both policy and scheme ask for them."""
    return None if scheme.abits == FULL_PRECISION else policy.attention
