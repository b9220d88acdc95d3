"""Discovery of plugins: each entry point on its own, into one `PluginTable`.

A broken plugin never breaks a command that does not name it: every entry point is imported,
validated and asked for its providers inside its own ``try``. What is wrong with it becomes its
status, in words; what is right about it stays usable.

    ok             everything it offers is usable
    broken         it cannot be imported, a hook raises, or a provider is invalid
    incompatible   a provider was written for another plugin API
    unknown-hook   it implements a hook that does not exist, most likely misspelt
    conflict       another plugin offers a provider of the same kind and name
    blocked        ``--block``, ``--no-plugins`` or TFQ_BENCH_BLOCK keeps it out
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Literal

import pluggy

from tfq_bench import __version__, hookspecs
from tfq_bench.errors import (
    BrokenPlugin,
    IncompatiblePlugin,
    PluginConflict,
    PluginError,
    SuiteError,
    TfqError,
    nearest,
)
from tfq_bench.hookspecs import OBSERVERS, REGISTRATIONS
from tfq_bench.providers import API, Option, Provider

__all__ = ["GROUP", "PluginInfo", "PluginStatus", "PluginTable", "discover"]

log = logging.getLogger("tfq_bench.host")

GROUP = "tfq_bench"
"""Entry-point group that plugins declare."""

HOST = "tfq-bench"
BUILTIN = "tfq_bench.builtin"
ALL = "*"

PluginStatus = Literal["ok", "broken", "incompatible", "conflict", "blocked", "unknown-hook"]

# An entry point with several faults shows the first of these, and the reasons of all.
_SEVERITY: tuple[PluginStatus, ...] = (
    "blocked",
    "broken",
    "incompatible",
    "unknown-hook",
    "conflict",
)
_ERRORS: dict[PluginStatus, type[PluginError]] = {
    "broken": BrokenPlugin,
    "incompatible": IncompatiblePlugin,
    "conflict": PluginConflict,
}


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
class _Offer:
    plugin: PluginInfo
    provider: Provider
    reason: str = ""  # why it cannot be used


@dataclass(slots=True)
class _Draft:
    """A plugin while it is being looked at."""

    info: PluginInfo
    offers: list[_Offer] = field(default_factory=list)
    faults: list[tuple[PluginStatus, str]] = field(default_factory=list)

    def offer(self, provider: Provider, reason: str = "") -> None:
        self.offers.append(_Offer(plugin=self.info, provider=provider, reason=reason))

    def finish(self) -> PluginInfo:
        kinds = {status for status, _ in self.faults}
        return replace(
            self.info,
            status=next((status for status in _SEVERITY if status in kinds), "ok"),
            reason=" ".join(reason for _, reason in self.faults),
            providers=tuple(offer.provider for offer in self.offers if not offer.reason),
        )


class PluginTable:
    """Every plugin that was found, and the providers of those that work.

    Args:
        drafts: what `discover` found, in its order.
    """

    def __init__(self, drafts: Iterable[_Draft], manager: pluggy.PluginManager) -> None:
        drafts = list(drafts)
        self._manager = manager
        self._offers = [offer for draft in drafts for offer in draft.offers]
        self.plugins: tuple[PluginInfo, ...] = tuple(draft.finish() for draft in drafts)

    def names(self, kind: str) -> tuple[str, ...]:
        """Sorted names of the usable providers of `kind` (`model`, `quantizer`, ...)."""
        return tuple(sorted({o.provider.name for o in self._of(kind) if not o.reason}))

    def get(self, kind: str, name: str) -> Any:
        """The provider of `kind` called `name` or ``distribution:name``.

        Raises:
            SuiteError: nothing of that name; offers the nearest, and names plugins with faults.
            PluginConflict: two distributions offer it and `name` does not choose.
            IncompatiblePlugin, BrokenPlugin: it is offered, but cannot be used.
        """
        distribution, _, plain = name.rpartition(":")
        found = [
            offer
            for offer in self._of(kind)
            if offer.provider.name == plain
            and (not distribution or _same(offer.plugin.distribution, distribution))
        ]
        usable = [offer for offer in found if not offer.reason]
        if len(usable) > 1:
            sources = " and ".join(offer.plugin.source for offer in usable)
            choices = " or ".join(f"'{offer.plugin.distribution}:{plain}'" for offer in usable)
            raise PluginConflict(
                f"{kind} '{name}' is offered by {sources}. Write {choices}, or uninstall or "
                "block one of them."
            )
        if usable:
            return usable[0].provider
        if found:
            other = found[0].provider.api != API
            raise (IncompatiblePlugin if other else BrokenPlugin)(
                f"{kind} '{name}' of plugin '{found[0].plugin.name}' ({found[0].plugin.source}) "
                f"cannot be used: {found[0].reason}"
            )
        raise SuiteError(f"no {kind} is called '{name}'; {self._hint(kind, plain)}")

    def distribution_of(self, provider: Provider) -> str:
        """`"distribution==version"` of the plugin that offers `provider`.

        Raises:
            PluginError: `provider` is not one of this table's.
        """
        plugin = self._plugin_of(provider)
        return f"{plugin.distribution}=={plugin.version}"

    def create(self, provider: Provider, **arguments: Any) -> Any:
        """What the provider's factory returns for `arguments`; imports it at the first call.

        Raises:
            TfqError: what the factory says itself.
            BrokenPlugin: the factory cannot be imported, or raises anything else.
        """
        plugin = self._plugin_of(provider)
        where = f"{provider.kind} '{provider.name}' of plugin '{plugin.name}' ({plugin.source})"
        module_name, _, attribute = provider.factory.partition(":")
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:
            raise BrokenPlugin(f"{where}: cannot import {module_name}: {_cause(error)}.") from error
        factory = getattr(module, attribute, None)
        if factory is None:
            public = [name for name in vars(module) if not name.startswith("_")]
            raise BrokenPlugin(
                f"{where}: {module_name} has no '{attribute}'; {nearest(attribute, public)}"
            )
        try:
            return factory(**arguments)
        except TfqError:
            raise
        except (Exception, SystemExit) as error:
            raise BrokenPlugin(f"{where}: {provider.factory} raised {_cause(error)}.") from error

    def notify(self, hook: str, **arguments: Any) -> None:
        """Tells every observer; what one raises is logged and keeps nobody from being told."""
        assert hook in OBSERVERS
        for impl in getattr(self._manager.hook, hook).get_hookimpls():
            try:
                impl.function(*(arguments[name] for name in impl.argnames))
            except (Exception, SystemExit):
                log.exception("observer %s of plugin %s failed", hook, impl.plugin_name)

    def _of(self, kind: str) -> list[_Offer]:
        assert kind in {provider.kind for provider in REGISTRATIONS.values()}
        return [offer for offer in self._offers if offer.provider.kind == kind]

    def _plugin_of(self, provider: Provider) -> PluginInfo:
        for offer in self._offers:
            if offer.provider is provider:  # equal providers of two distributions are not one
                return offer.plugin
        raise PluginError(f"{provider.kind} '{provider.name}' does not come from this table.")

    def _hint(self, kind: str, name: str) -> str:
        hint = nearest(name, self.names(kind))
        faulty = [
            f"'{p.name}' ({p.source}) is {p.status}: {p.reason}"
            for p in self.plugins
            if p.status in ("broken", "blocked", "unknown-hook")
        ]
        if faulty:
            hint += " It may belong to a plugin that could not be used: " + " ".join(faulty)
        return hint


def discover(*, block: Iterable[str] = (), extra: Iterable[str] = ()) -> PluginTable:
    """Every installed plugin, the host's own first, then by distribution and entry-point name.

    Args:
        block: names of entry points or distributions to leave out; ``*`` is all but the host's.
            Names in the environment variable TFQ_BENCH_BLOCK (comma-separated) are added.
        extra: modules that are plugins without being installed.

    Raises:
        PluginError: a plugin has a fault and TFQ_BENCH_STRICT_PLUGINS is 1.
    """
    blocked = {*block, *filter(None, re.split(r"[,\s]+", os.environ.get("TFQ_BENCH_BLOCK", "")))}
    manager = pluggy.PluginManager("tfq_bench")
    manager.add_hookspecs(hookspecs)
    drafts = [_Draft(info) for info in _candidates(extra)]
    for draft in drafts:
        _inspect(draft, blocked, manager)
    _mark_conflicts(drafts)
    for name in sorted(blocked - {ALL}):
        known = {n for d in drafts for n in (d.info.name, d.info.distribution)}
        if not any(_same(name, other) for other in known):
            log.warning("nothing to block is called '%s'; %s", name, nearest(name, known))
    table = PluginTable(drafts, manager)
    if os.environ.get("TFQ_BENCH_STRICT_PLUGINS") == "1":
        _refuse_faults(table)
    return table


def _entry_points() -> Iterable[importlib.metadata.EntryPoint]:
    return importlib.metadata.entry_points(group=GROUP)


def _candidates(extra: Iterable[str]) -> list[PluginInfo]:
    # The host's own plugin does not depend on how the host was installed.
    found = [PluginInfo(name="builtin", distribution=HOST, version=__version__, module=BUILTIN)]
    installed = [
        PluginInfo(
            name=point.name,
            distribution=point.dist.name if point.dist else "unknown",
            version=point.dist.version if point.dist else "unknown",
            module=point.value,
        )
        for point in _entry_points()
        if point.value != BUILTIN
    ]
    found += sorted(installed, key=lambda info: (_normal(info.distribution), info.name))
    found += [
        PluginInfo(name=module, distribution=module, version="uninstalled", module=module)
        for module in extra
    ]
    return found


def _inspect(draft: _Draft, blocked: set[str], manager: pluggy.PluginManager) -> None:
    info = draft.info
    named = any(_same(name, other) for name in blocked for other in (info.name, info.distribution))
    if named or (ALL in blocked and info.module != BUILTIN):
        draft.faults.append(("blocked", "It was asked to be left out."))
        return
    module = _load(draft)
    if module is None:
        return
    _report_unknown_hooks(draft, module, manager)
    try:
        manager.register(module, name=f"{info.distribution}:{info.name}")
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


def _load(draft: _Draft) -> ModuleType | None:
    name = draft.info.module.partition(":")[0].strip()
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        log.debug("plugin %s", draft.info.name, exc_info=True)
        draft.faults.append(("broken", f"Importing {name} failed: {_cause(error)}."))
        return None


def _report_unknown_hooks(draft: _Draft, module: ModuleType, manager: pluggy.PluginManager) -> None:
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


def _collect(draft: _Draft, hook: str, function: Any) -> None:
    """Adds the providers that one hook returns; those before a fault stay."""
    try:
        for provider in function() or ():
            _check(draft, hook, provider)
    except (Exception, SystemExit) as error:
        log.debug("plugin %s, %s", draft.info.name, hook, exc_info=True)
        text = str(error) if isinstance(error, TfqError) else f"{_cause(error)}."
        draft.faults.append(("broken", f"{hook} failed: {text}"))


def _check(draft: _Draft, hook: str, provider: object) -> None:
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


def _mark_conflicts(drafts: list[_Draft]) -> None:
    groups: dict[tuple[str, str], list[_Draft]] = {}
    for draft in drafts:
        for offer in draft.offers:
            if not offer.reason:
                key = offer.provider.kind, offer.provider.name
                groups.setdefault(key, []).append(draft)
    for (kind, name), owners in groups.items():
        if len(owners) > 1:
            sources = " and ".join(owner.info.source for owner in owners)
            choice = f"{owners[0].info.distribution}:{name}"
            reason = f"{kind} '{name}' is offered by {sources}; choose with '{choice}'."
            for owner in {id(owner): owner for owner in owners}.values():
                owner.faults.append(("conflict", reason))


def _refuse_faults(table: PluginTable) -> None:
    faulty = [plugin for plugin in table.plugins if plugin.status not in ("ok", "blocked")]
    if faulty:
        listing = "\n".join(
            f"  '{plugin.name}' ({plugin.source}) is {plugin.status}: {plugin.reason}"
            for plugin in faulty
        )
        raise _ERRORS.get(faulty[0].status, PluginError)(
            f"TFQ_BENCH_STRICT_PLUGINS is 1 and not every plugin is sound:\n{listing}"
        )


def _cause(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _same(one: str, other: str) -> bool:
    return _normal(one) == _normal(other)
