"""One plugin under inspection: imported, validated, asked for its providers.

Nothing here raises for what a plugin does wrong; it becomes a fault, in words.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Literal

import pluggy

from tfq_bench.errors import SuiteError, TfqError, nearest
from tfq_bench.hookspecs import OBSERVERS, REGISTRATIONS
from tfq_bench.providers import API, Option, Provider

__all__ = ["HOST", "Draft", "Offer", "PluginInfo", "PluginStatus", "cause", "inspect"]

log = logging.getLogger("tfq_bench.host")

HOST = "tfq-bench"
"""Distribution of the host."""

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

    def finish(self) -> PluginInfo:
        """The plugin with its status, every reason and what is usable."""
        kinds = {status for status, _ in self.faults}
        return replace(
            self.info,
            status=next((status for status in _SEVERITY if status in kinds), "ok"),
            reason=" ".join(reason for _, reason in self.faults),
            providers=tuple(offer.provider for offer in self.offers if not offer.reason),
        )


def inspect(draft: Draft, manager: pluggy.PluginManager) -> None:
    """Imports and registers the plugin of `draft`; adds its providers and its faults to it."""
    module = _load(draft)
    if module is None:
        return
    _report_unknown_hooks(draft, module, manager)
    try:
        manager.register(module, name=f"{draft.info.distribution}:{draft.info.name}")
    except (pluggy.PluginValidationError, ValueError) as error:
        text = " ".join(str(error).split())
        draft.faults.append(("broken", f"Its hooks do not fit: {text}."))
        return
    for caller in manager.get_hookcallers(module) or []:
        for impl in caller.get_hookimpls():
            if impl.plugin is not module:
                continue
            if impl.hookwrapper or impl.wrapper:
                manager.unregister(module)
                draft.faults.append(("broken", f"{caller.name} is a hook wrapper; use a function."))
                return
            if caller.name in REGISTRATIONS:
                _collect(draft, caller.name, impl.function)


def _load(draft: Draft) -> ModuleType | None:
    name = draft.info.module.partition(":")[0].strip()
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        log.debug("plugin %s", draft.info.name, exc_info=True)
        draft.faults.append(("broken", f"Importing {name} failed: {cause(error)}."))
        return None


def _report_unknown_hooks(draft: Draft, module: ModuleType, manager: pluggy.PluginManager) -> None:
    known = (*REGISTRATIONS, *OBSERVERS)
    for name, value in sorted(vars(module).items()):
        marked = manager.parse_hookimpl_opts(module, name)
        if marked is None:
            if name in known and callable(value):
                draft.faults.append(
                    ("broken", f"{name} is not marked with @api.hookimpl, so it would never run.")
                )
        elif (marked.get("specname") or name) not in known and not marked.get("optionalhook"):
            draft.faults.append(
                ("unknown-hook", f"There is no hook '{name}'; {nearest(name, known)}")
            )


def _collect(draft: Draft, hook: str, function: Any) -> None:
    """Adds the providers that one hook returns; those before a fault stay."""
    try:
        for provider in function() or ():
            _check(draft, hook, provider)
    except (Exception, SystemExit) as error:
        log.debug("plugin %s, %s", draft.info.name, hook, exc_info=True)
        text = str(error) if isinstance(error, TfqError) else f"{cause(error)}."
        draft.faults.append(("broken", f"{hook} failed: {text}"))


def _check(draft: Draft, hook: str, provider: object) -> None:
    wanted = REGISTRATIONS[hook]
    if not isinstance(provider, wanted):
        found = f"{provider!r:.80}"
        draft.faults.append(
            ("broken", f"{hook} must return {wanted.__name__} objects, found {found}.")
        )
        return
    what = f"{provider.kind} '{provider.name}'"
    if provider.api != API:
        older = isinstance(provider.api, int) and provider.api < API
        advice = f"Upgrade {draft.info.distribution if older else HOST}."
        reason = f"it was written for plugin API {provider.api}, this host has API {API}. {advice}"
        draft.offer(provider, reason)
        draft.faults.append(("incompatible", f"{what}: {reason}"))
        return
    fault = _option_fault(provider)
    draft.offer(provider, fault)
    if fault:
        draft.faults.append(("broken", f"{what}: {fault}"))


def _option_fault(provider: Provider) -> str:
    seen: set[str] = set()
    for option in provider.options:
        if not isinstance(option, Option):
            return f"its options must be Option objects, found {option!r:.80}."
        if option.name in seen:
            return f"it has two options called '{option.name}'."
        seen.add(option.name)
        try:
            option.parse(option.default, "the default is invalid")
        except SuiteError as error:
            return str(error)
    return ""


def cause(error: BaseException) -> str:
    """Type and text of an exception, in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
