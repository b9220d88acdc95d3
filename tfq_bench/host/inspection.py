"""One plugin under inspection: imported, validated, asked for its providers.

Nothing here raises for what a plugin does wrong; it becomes a fault, in words.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Literal

import pluggy

from tfq_bench.errors import TfqError, nearest
from tfq_bench.foreign import interrupts
from tfq_bench.foreign.text import printable
from tfq_bench.host.described import copied, from_data, option_fault, shown, to_data
from tfq_bench.host.hookspecs import REGISTRATIONS
from tfq_bench.providers import API, Provider

__all__ = [
    "BUILTIN",
    "HOST",
    "Draft",
    "Offer",
    "PluginInfo",
    "PluginStatus",
    "cause",
    "inspect",
    "out_of_memory",
]

log = logging.getLogger("tfq_bench.host")

HOST = "tfq-bench"
"""Distribution of the host."""

BUILTIN = "tfq_bench.host.builtin"
"""Module of the host's own plugin."""

MAX_PROVIDERS = 1000
"""Of one hook."""

MAX_REASON = 2000

PluginStatus = Literal["ok", "broken", "incompatible", "conflict", "blocked", "unknown-hook"]

# An entry point with several faults shows the first of these, and the reasons of all.
_SEVERITY: tuple[PluginStatus, ...] = (
    "blocked",
    "broken",
    "incompatible",
    "unknown-hook",
    "conflict",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """One entry point and what became of it.

    Args:
        name: name of the entry point.
        distribution, version: of the package that declares it.
        module: what the entry point names.
        reason: what is wrong in words, empty when `status` is `ok`.
        providers: what is usable of it; with status `conflict` only as ``distribution:name``.
    """

    name: str
    distribution: str
    version: str
    module: str
    status: PluginStatus = "ok"
    reason: str = ""
    providers: tuple[Provider, ...] = ()

    @property
    def source(self) -> str:
        """`"distribution version"`, as messages name it."""
        return f"{self.distribution} {self.version}"

    @property
    def import_name(self) -> str:
        """Dotted name of the module to import; `module` may name an object in it as well."""
        return self.module.partition(":")[0].partition("[")[0].strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A provider of a plugin; `reason` says why it cannot be used, empty when it can."""

    plugin: PluginInfo
    provider: Provider
    reason: str = ""


@dataclass(slots=True)
class Draft:
    """A plugin while it is being looked at."""

    info: PluginInfo
    offers: list[Offer] = field(default_factory=list)
    faults: list[tuple[PluginStatus, str]] = field(default_factory=list)

    def offer(self, provider: Provider, reason: str = "") -> None:
        """Adds a provider."""
        self.offers.append(Offer(plugin=self.info, provider=provider, reason=reason))

    def fault(self, status: PluginStatus, reason: str) -> None:
        """Adds what is wrong, as a sentence."""
        self.faults.append((status, printable(reason, MAX_REASON)))

    def refuse(self, reason: str) -> None:
        """Makes the plugin broken for what it did, and all that it offers unusable."""
        self.fault("broken", reason)
        self.offers = [replace(one, reason=one.reason or reason) for one in self.offers]

    def finish(self) -> PluginInfo:
        """The plugin with its status, every reason and what is usable."""
        kinds = {status for status, _ in self.faults}
        return replace(
            self.info,
            status=next((status for status in _SEVERITY if status in kinds), "ok"),
            reason=printable(" ".join(reason for _, reason in self.faults), MAX_REASON),
            providers=tuple(offer.provider for offer in self.offers if not offer.reason),
        )

    def answer(self) -> dict[str, Any]:
        """What inspection found, as JSON-able data for `take`."""
        return {
            "offers": [[to_data(one.provider), one.reason] for one in self.offers],
            "faults": [list(fault) for fault in self.faults],
        }

    def take(self, answer: Mapping[str, Any]) -> None:
        """Adds what another process found.

        Raises:
            ValueError: it is not what `answer` returns.
        """
        try:
            offers = [(from_data(data), printable(reason)) for data, reason in answer["offers"]]
            faults = [
                (_SEVERITY[_SEVERITY.index(s)], printable(reason)) for s, reason in answer["faults"]
            ]
        except (TfqError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"not an answer of a plugin: {cause(error)}") from None
        for provider, reason in offers:
            self.offer(provider, reason)
        self.faults += faults


def inspect(draft: Draft, manager: pluggy.PluginManager) -> None:
    """Imports and registers the plugin of `draft`; adds its providers and its faults to it."""
    try:
        module = importlib.import_module(draft.info.import_name)
    except BaseException as error:
        if interrupts.asked_for(error):
            raise
        log.debug("plugin %s", draft.info.name, exc_info=True)
        draft.fault("broken", f"Importing {draft.info.import_name} failed: {cause(error)}.")
        return
    try:
        _examine(draft, module, manager)
    except BaseException as error:  # looking at a module can run its code
        if interrupts.asked_for(error):
            raise
        log.debug("plugin %s", draft.info.name, exc_info=True)
        draft.fault("broken", f"Looking at its hooks failed: {cause(error)}.")


def _examine(draft: Draft, module: ModuleType, manager: pluggy.PluginManager) -> None:
    _report_unknown_hooks(draft, module, manager)
    try:
        manager.register(module, name=f"{draft.info.distribution}:{draft.info.name}")
    except (pluggy.PluginValidationError, ValueError) as error:
        draft.fault("broken", f"Its hooks do not fit: {printable(error)}.")
        return
    for caller in manager.get_hookcallers(module) or []:
        for impl in caller.get_hookimpls():
            if impl.plugin is not module:
                continue
            if impl.hookwrapper or impl.wrapper:
                manager.unregister(module)
                draft.fault("broken", f"{caller.name} is a hook wrapper; use a function.")
                return
            if caller.name in REGISTRATIONS:
                _collect(draft, caller.name, impl.function)


def _report_unknown_hooks(draft: Draft, module: ModuleType, manager: pluggy.PluginManager) -> None:
    known = REGISTRATIONS
    for name, value in sorted(vars(module).items()):
        marked = manager.parse_hookimpl_opts(module, name)
        if marked is None:
            if name in known and callable(value):
                draft.fault(
                    "broken", f"{name} is not marked with @api.hookimpl, so it would never run."
                )
        elif not marked.get("optionalhook") and (marked.get("specname") or name) not in known:
            draft.fault("unknown-hook", f"There is no hook '{name}'; {nearest(name, known)}")


def _collect(draft: Draft, hook: str, function: Any) -> None:
    """Adds the providers that one hook returns; those before a fault stay."""
    try:
        offered: Iterable[object] = function() or ()
        before = len(draft.offers)
        for number, provider in enumerate(offered):
            if number == MAX_PROVIDERS:
                del draft.offers[before:]
                draft.fault("broken", f"{hook} offers more than {MAX_PROVIDERS} providers.")
                return
            _check(draft, hook, provider)
    except BaseException as error:
        if interrupts.asked_for(error):
            raise
        log.debug("plugin %s, %s", draft.info.name, hook, exc_info=True)
        text = printable(error) if isinstance(error, TfqError) else f"{cause(error)}."
        draft.fault("broken", f"{hook} failed: {text}")


def _check(draft: Draft, hook: str, found: object) -> None:
    wanted = REGISTRATIONS[hook]
    if not isinstance(found, wanted):
        draft.fault(
            "broken", f"{hook} must return {wanted.__name__} objects, found {shown(found)}."
        )
        return
    provider = copied(found, wanted)
    what = f"{provider.kind} '{provider.name}'"
    if provider.api != API:
        advice = f"Upgrade {draft.info.distribution if provider.api < API else HOST}."
        reason = f"it was written for plugin API {provider.api}, this host has API {API}. {advice}"
        draft.offer(provider, reason)
        draft.fault("incompatible", f"{what}: {reason}")
        return
    fault = printable(option_fault(provider))
    draft.offer(provider, fault)
    if fault:
        draft.fault("broken", f"{what}: {fault}")


def cause(error: BaseException) -> str:
    """Type and text of an exception, in one line."""
    try:
        text = printable(error, 500)
    except BaseException:  # its `__str__` is the plugin's
        text = ""
    name = printable(type(error).__name__, 100)
    return f"{name}: {text}" if text else name


def out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, also while a library was loaded or behind another error."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, ImportError | OSError) and any(
            sign in cause(error) for sign in ("allocate memory", "failed to map segment")
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
