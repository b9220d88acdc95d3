"""Whether a provider's factory is what it should be: it is imported and looked at, not called."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from tfq_bench.assets.declared import Asset
from tfq_bench.errors import TfqError, nearest
from tfq_bench.foreign import interrupts
from tfq_bench.foreign.text import printable
from tfq_bench.host.answers import METHODS
from tfq_bench.host.described import shown
from tfq_bench.host.inspection import cause
from tfq_bench.providers import ExecutorProvider, Provider, QuantizerProvider

__all__ = ["factory_faults"]

_GIVEN = {"quantizer": ("scheme",), "executor": ("run",)}
"""What the host passes besides the options."""


def factory_faults(provider: Provider, entry: str) -> list[str]:
    """What is wrong with the factory and the assets function of a provider, as sentences.

    Args:
        entry: module of the plugin, imported before its factories.
    """
    faults = []
    try:
        importlib.import_module(entry)
        found = _target(provider.factory)
        faults += _lacking(provider, found)
        faults += _arguments(provider, found)
        if provider.assets:
            faults += _assets(provider, _target(provider.assets))
    except _Missing as missing:
        faults.append(str(missing))
    except BaseException as error:
        if interrupts.asked_for(error):
            raise
        text = printable(error) if isinstance(error, TfqError) else f"{cause(error)}."
        faults.append(text)
    return faults


class _Missing(Exception):
    """A module or a name that is not there, as a sentence."""


def _target(text: str) -> Any:
    module_name, _, attribute = text.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise _Missing(f"cannot import {module_name}: {cause(error)}.") from error
    found = getattr(module, attribute, None)
    if found is None:
        public = [name for name in vars(module) if not name.startswith("_")]
        raise _Missing(f"{module_name} has no '{attribute}'; {nearest(attribute, public)}")
    if not callable(found):
        raise _Missing(f"{text} cannot be called; it is {shown(found)}.")
    return found


def _lacking(provider: Provider, found: Any) -> list[str]:
    if not isinstance(found, type):
        return []  # a function: what it makes is seen when it is called
    methods = METHODS[provider.protocol]
    lacking = [name for name in methods if not callable(getattr(found, name, None))]
    if lacking and "__getattr__" not in vars(found):
        return [f"{provider.factory} lacks {', '.join(lacking)} of a {provider.protocol}."]
    return []


def _arguments(provider: Provider, found: Any) -> list[str]:
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # some built-in ones have none
        return []
    names = [*_GIVEN.get(provider.kind, ()), *(option.name for option in provider.options)]
    if isinstance(provider, ExecutorProvider) and provider.gpus:
        names.append("devices")
    if isinstance(provider, QuantizerProvider) and provider.wraps:
        names.append("base")
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError as error:
        given = ", ".join(names) or "nothing"
        return [f"{provider.factory} is called with {given}, and does not fit: {error}."]
    return []


def _assets(provider: Provider, found: Any) -> list[str]:
    answer = found({option.name: option.default for option in provider.options})
    if isinstance(answer, tuple) and all(isinstance(one, Asset) for one in answer):
        return []
    return [f"{provider.assets} must return a tuple of Asset objects, found {shown(answer)}."]
