"""What plugins' objects must offer and return, held against it where the host gets them.

A wrong answer is told by the name of its provider and distribution, and not three modules later as
an attribute that `None` does not have. Values are judged where they are used; here it is types.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from tfq_bench.border import CalibrationNeeds, Guidance, Topology
from tfq_bench.described import shown
from tfq_bench.errors import BrokenPlugin

__all__ = ["METHODS", "held_to_protocol"]

METHODS: dict[str, tuple[str, ...]] = {
    "model": ("load", "predict", "topology", "sampler", "conditions", "guidance", "decode"),
    "quantizer": ("calibration_needs", "quantize"),
    "backend": ("check", "supports", "lower"),
    "metric": ("definitions", "evaluate"),
    "executor": ("run",),
    "renderer": ("render",),
}
"""Methods that an object of a kind must have, see `protocols`."""

_STATE = ("layers", "timesteps", "save")
_SAMPLER = ("timesteps", "definition", "initial", "network_input", "step", "final", "stochastic")


def _has(*names: str) -> Callable[[object], bool]:
    return lambda value: all(hasattr(value, name) for name in names)


_RETURNS: dict[tuple[str, str], tuple[str, Callable[[object], bool]]] = {
    ("model", "load"): ("an nn.Module", _has("parameters", "named_modules", "forward")),
    ("model", "topology"): ("a Topology", lambda value: isinstance(value, Topology)),
    ("model", "sampler"): ("a Sampler", _has(*_SAMPLER)),
    ("model", "conditions"): ("a mapping", lambda value: isinstance(value, Mapping)),
    ("model", "guidance"): (
        "Guidance or None",
        lambda value: value is None or isinstance(value, Guidance),
    ),
    ("quantizer", "calibration_needs"): (
        "CalibrationNeeds",
        lambda value: isinstance(value, CalibrationNeeds),
    ),
    ("quantizer", "quantize"): ("a QuantizedState", _has(*_STATE)),
    ("backend", "supports"): (
        "a reason or None",
        lambda value: value is None or isinstance(value, str),
    ),
}


def held_to_protocol(made: Any, kind: str, where: str) -> Any:
    """`made`, whose methods from now on say so when they return something of another type.

    Args:
        kind: of the provider.
        where: how messages begin: the provider, its plugin and distribution.

    Raises:
        BrokenPlugin: it lacks a method that every object of its kind has.
    """
    lacking = [name for name in METHODS[kind] if not callable(getattr(made, name, None))]
    if lacking:
        raise BrokenPlugin(
            f"{where}: its factory is expected to give an object with {', '.join(METHODS[kind])}; "
            f"found {shown(made)} without {', '.join(lacking)}."
        )
    for (of_kind, name), (wanted, fits) in _RETURNS.items():
        if of_kind == kind:
            with suppress(AttributeError, TypeError):  # an object with slots is judged where used
                object.__setattr__(made, name, _checked(getattr(made, name), wanted, fits, where))
    return made


def _checked(
    method: Callable[..., Any], wanted: str, fits: Callable[[object], bool], where: str
) -> Callable[..., Any]:
    @functools.wraps(method)
    def checked(*positional: Any, **named: Any) -> Any:
        found = method(*positional, **named)
        if not fits(found):
            raise BrokenPlugin(
                f"{where}: `{method.__name__}` is expected to return {wanted}, found "
                f"{type(found).__name__}."
            )
        return found

    return checked
