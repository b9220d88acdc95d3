"""What plugins' objects must offer and return, held against it where the host gets them.

A wrong answer is told by the name of its provider and distribution, and not three modules later as
an attribute that `None` does not have. Values are judged where they are used; here it is types.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

from tfq_bench.errors import BrokenPlugin
from tfq_bench.host.described import shown
from tfq_bench.types import CalibrationNeeds, Guidance, Topology

__all__ = ["METHODS", "held_to_protocol"]

METHODS: dict[str, tuple[str, ...]] = {
    "model": ("load", "predict", "topology", "sampler", "conditions", "guidance", "decode"),
    "quantizer": ("calibration_needs", "quantize"),
    "contestant": ("check", "calibration_needs", "quantize", "load"),
    "backend": ("check", "lower"),
    "metric": ("evaluate",),
    "executor": ("run",),
    "renderer": ("render",),
}
"""Methods that an object must have, by `Provider.protocol`, see `protocols`."""

_STATE = ("layers", "timesteps", "exempt")


def _has(*names: str) -> Callable[[object], bool]:
    return lambda value: all(hasattr(value, name) for name in names)


_RETURNS: dict[tuple[str, str], tuple[str, Callable[[object], bool]]] = {
    ("model", "load"): ("an nn.Module", _has("parameters", "named_modules", "forward")),
    ("model", "topology"): ("a Topology", lambda value: isinstance(value, Topology)),
    ("model", "sampler"): ("a Sampler", _has("definition")),
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
    ("contestant", "calibration_needs"): (
        "CalibrationNeeds",
        lambda value: isinstance(value, CalibrationNeeds),
    ),
}


def held_to_protocol(made: Any, kind: str, where: str) -> Any:
    """`made`, whose methods from now on say so when they return something of another type.

    A method that it lacks says so when it is called: a run may do without it.

    Args:
        kind: the provider's protocol.
        where: how messages begin: the provider, its plugin and distribution.

    Raises:
        BrokenPlugin: it is a built-in value such as None, not an object of its kind.
    """
    methods = METHODS[kind]
    lacking = [name for name in methods if not callable(getattr(made, name, None))]
    if lacking and type(made).__module__ == "builtins":  # None, a text, a class
        raise BrokenPlugin(
            f"{where}: its factory is expected to give an object with {', '.join(methods)}, found "
            f"{shown(made)}."
        )
    checked = {name: _missing(name, kind, where) for name in lacking}
    for (of_kind, name), (wanted, fits) in _RETURNS.items():
        if of_kind == kind and name not in lacking:
            checked[name] = _checked(made, name, wanted, fits, where)
    for name, method in checked.items():
        with suppress(AttributeError, TypeError):  # an object with slots is judged where it is used
            object.__setattr__(made, name, method)
    return made


def _missing(name: str, kind: str, where: str) -> Callable[..., Any]:
    def missing(*_: Any, **__: Any) -> NoReturn:
        raise BrokenPlugin(f"{where} has no method `{name}`, which every {kind} has.")

    return missing


def _checked(
    made: Any, name: str, wanted: str, fits: Callable[[object], bool], where: str
) -> Callable[..., Any]:
    method = getattr(made, name)

    @functools.wraps(method)
    def checked(*positional: Any, **named: Any) -> Any:
        found = method(*positional, **named)
        if not fits(found):
            raise BrokenPlugin(
                f"{where}: `{name}` is expected to return {wanted}, found {type(found).__name__}."
            )
        return found

    return checked
