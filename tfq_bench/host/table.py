"""Discovery of plugins: each entry point on its own, into one `PluginTable`.

A broken plugin never breaks a command that does not name it: what others wrote is imported,
validated and asked for its providers in a child process, and what comes from there is data. It is
imported here when something of it is used. What is wrong with it becomes its status, in words;
what is right about it stays usable.

    ok             everything it offers is usable
    broken         its metadata are damaged, it cannot be imported, a hook raises, a provider is
                   invalid; or it exits, crashes, hangs, prints or changes the process
    incompatible   a provider was written for another plugin API
    unknown-hook   it implements a hook that does not exist, most likely misspelt
    conflict       another plugin offers a provider of the same kind and name
    blocked        ``--block``, ``--no-plugins`` or TFQ_BENCH_BLOCK keeps it out
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import pluggy

from tfq_bench.assets.declared import Asset
from tfq_bench.errors import (
    BrokenPlugin,
    IncompatiblePlugin,
    PluginConflict,
    PluginError,
    SuiteError,
    TfqError,
    UsageError,
    nearest,
)
from tfq_bench.foreign import interrupts
from tfq_bench.foreign.text import printable
from tfq_bench.host import hookspecs
from tfq_bench.host.answers import held_to_protocol
from tfq_bench.host.described import shown
from tfq_bench.host.discovery.asking import ask
from tfq_bench.host.discovery.installed import GROUP, installed, normal
from tfq_bench.host.hookspecs import REGISTRATIONS
from tfq_bench.host.inspection import (
    HOST,
    Draft,
    Offer,
    PluginInfo,
    PluginStatus,
    cause,
    inspect,
    out_of_memory,
)
from tfq_bench.provenance.code_version import code_version, is_editable
from tfq_bench.providers import API, OptionValue, Provider
from tfq_bench.version import __version__

__all__ = [
    "GROUP",
    "PluginInfo",
    "PluginStatus",
    "PluginTable",
    "candidates",
    "discover",
    "refuse_unknown",
]

log = logging.getLogger("tfq_bench.host")

BUILTIN = "tfq_bench.host.builtin"
FIRST_HAND = (BUILTIN, "tfq_bench.testing.tiny_plugin")
"""Entry points that are the host's own code."""

ALL = "*"
MAX_ASSETS = 1000
"""Of one provider with its options."""

_ERRORS: dict[PluginStatus, type[PluginError]] = {
    "broken": BrokenPlugin,
    "incompatible": IncompatiblePlugin,
    "conflict": PluginConflict,
}


class PluginTable:
    """Every plugin that was found, and the providers of those that work.

    Args:
        drafts: what `discover` found, in its order.
        complete: whether what is installed was looked at.
    """

    def __init__(self, drafts: Iterable[Draft], *, complete: bool = True) -> None:
        drafts = list(drafts)
        self._complete = complete
        self._offers = [offer for draft in drafts for offer in draft.offers]
        self.plugins: tuple[PluginInfo, ...] = tuple(draft.finish() for draft in drafts)

    @property
    def host_version(self) -> str:
        """Of the host itself, with a digest of its code where that is editable."""
        return next(plugin.version for plugin in self.plugins if plugin.module == BUILTIN)

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
                "block one of them.",
                component=f"{kind} '{name}'",
            )
        if usable:
            return usable[0].provider
        if found:
            other = found[0].provider.api != API
            raise (IncompatiblePlugin if other else BrokenPlugin)(
                f"{kind} '{name}' of plugin '{found[0].plugin.name}' ({found[0].plugin.source}) "
                f"cannot be used: {found[0].reason}",
                component=f"{kind} '{name}'",
            )
        raise SuiteError(
            f"no {kind} is called '{name}'; {self._hint(kind, plain)}", component=f"{kind} '{name}'"
        )

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
            BrokenPlugin: the factory cannot be imported, raises anything else, or gives an object
                without any method of its kind; later, from the object's methods, see `answers`.
            MemoryError: memory ran out while it was imported or called.
        """
        made = self._call(provider, provider.factory, **arguments)
        return held_to_protocol(made, provider.kind, self.where(provider))

    def assets(self, provider: Provider, options: Mapping[str, OptionValue]) -> tuple[Asset, ...]:
        """The files that a provider needs on disk with these options, found or not.

        Raises:
            TfqError: what the plugin's function says itself.
            BrokenPlugin: it cannot be imported, raises anything else, or returns other things.
        """
        if not provider.assets:
            return ()
        found = self._call(provider, provider.assets, options)
        if (
            not isinstance(found, tuple)
            or len(found) > MAX_ASSETS
            or not all(isinstance(one, Asset) for one in found)
        ):
            raise BrokenPlugin(
                f"{self.where(provider)}: {provider.assets} must return a tuple of Asset objects, "
                f"at most {MAX_ASSETS}, found {shown(found)}."
            )
        return found

    def _call(self, provider: Provider, target: str, /, *positional: Any, **named: Any) -> Any:
        """What ``"module:function"`` of the provider's plugin returns."""
        where = self.where(provider)
        module_name, _, attribute = target.partition(":")
        try:
            with contextlib.redirect_stdout(sys.stderr):  # where results are read by scripts
                # What the plugin's own module prepares, its factories rely on.
                importlib.import_module(self._plugin_of(provider).import_name)
                module = importlib.import_module(module_name)
                function = getattr(module, attribute, None)
            public = [name for name in vars(module) if not name.startswith("_")]
        except BaseException as error:
            if interrupts.asked_for(error) or out_of_memory(error):
                raise
            raise BrokenPlugin(f"{where}: cannot import {module_name}: {cause(error)}.") from error
        if function is None:
            raise BrokenPlugin(
                f"{where}: {module_name} has no '{attribute}'; {nearest(attribute, public)}"
            )
        try:
            with contextlib.redirect_stdout(sys.stderr):
                return function(*positional, **named)
        except TfqError:
            raise
        except BaseException as error:
            if interrupts.asked_for(error) or out_of_memory(error):
                raise
            raise BrokenPlugin(f"{where}: {target} raised {cause(error)}.") from error

    def where(self, provider: Provider) -> str:
        """`metric 'psnr' of plugin 'mine' (my-dist 1.0)`, as messages begin."""
        plugin = self._plugin_of(provider)
        return f"{provider.kind} '{provider.name}' of plugin '{plugin.name}' ({plugin.source})"

    def _of(self, kind: str) -> list[Offer]:
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
        if not self._complete:
            hint += " Installed plugins were left out, as --no-plugins or TFQ_BENCH_BLOCK asks."
        if faulty:
            hint += " It may belong to a plugin that could not be used: " + " ".join(faulty)
        return hint


def discover(
    *, block: Iterable[str] = (), extra: Iterable[str] = (), anew: bool = False
) -> PluginTable:
    """Every installed plugin, the host's own first, then by distribution and entry-point name.

    Args:
        block: names of entry points or distributions to leave out; with ``*`` nothing that is
            installed is looked at. Names in the environment variable TFQ_BENCH_BLOCK
            (comma-separated) are added.
        extra: modules that are plugins without being installed.
        anew: whether to try also the plugins whose answer is remembered.

    Raises:
        PluginError: a plugin has a fault and TFQ_BENCH_STRICT_PLUGINS is 1.
    """
    blocked = {*block, *filter(None, re.split(r"[,\s]+", os.environ.get("TFQ_BENCH_BLOCK", "")))}
    manager = pluggy.PluginManager("tfq_bench")
    manager.add_hookspecs(hookspecs)
    drafts = candidates(extra, installed_too=ALL not in blocked)
    asked = []
    for draft in drafts:
        if _is_blocked(draft.info, blocked):
            draft.faults[:] = [("blocked", "It was asked to be left out.")]
        elif draft.info.import_name in FIRST_HAND:
            inspect(draft, manager)
        elif not draft.faults:
            asked.append(draft)
    ask(asked, host_version=drafts[0].info.version, anew=anew)
    _mark_conflicts(drafts)
    for name in sorted(blocked - {ALL} if ALL not in blocked else ()):
        known = {n for d in drafts for n in (d.info.name, d.info.distribution)}
        if not any(_same(name, other) for other in known):
            log.warning(
                "nothing to block is called '%s'; %s", printable(name, 80), nearest(name, known)
            )
    table = PluginTable(drafts, complete=ALL not in blocked)
    if os.environ.get("TFQ_BENCH_STRICT_PLUGINS") == "1":
        _refuse_faults(table)
    return table


def refuse_unknown(names: Iterable[str]) -> None:
    """Returns when each name is that of an installed plugin or its distribution, or ``*``.

    Raises:
        UsageError: a name is none; a typing error would block nothing.
    """
    known = {"builtin", HOST}
    for draft in installed():
        known |= {draft.info.name, draft.info.distribution}
    for name in names:
        if name != ALL and not any(_same(name, other) for other in known):
            raise UsageError(f"--block: no plugin is called '{name}'; {nearest(name, known)}")


def candidates(extra: Iterable[str] = (), *, installed_too: bool = True) -> list[Draft]:
    """Every plugin before anything of it is imported, the host's own first."""
    # The host's own plugin is there however the host was installed.
    own = PluginInfo(name="builtin", distribution=HOST, version=_own_version(), module=BUILTIN)
    found = [Draft(own), *(installed() if installed_too else ())]
    for module in extra:
        version = code_version("uninstalled", module)
        found.append(
            Draft(PluginInfo(name=module, distribution=module, version=version, module=module))
        )
    return found


def _own_version() -> str:
    try:
        editable = is_editable(importlib.metadata.distribution(HOST))
    except (importlib.metadata.PackageNotFoundError, ValueError):  # run from its sources
        editable = True
    return code_version(__version__, BUILTIN) if editable else __version__


def _is_blocked(info: PluginInfo, blocked: set[str]) -> bool:
    named = any(_same(name, other) for name in blocked for other in (info.name, info.distribution))
    return named or (ALL in blocked and info.module != BUILTIN)


def _mark_conflicts(drafts: list[Draft]) -> None:
    groups: dict[tuple[str, str], list[Draft]] = {}
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
        raise _ERRORS.get(faulty[0].status, PluginError)(
            "TFQ_BENCH_STRICT_PLUGINS is 1 and not every plugin is sound:",
            details=[
                f"'{plugin.name}' ({plugin.source}) is {plugin.status}: {plugin.reason}"
                for plugin in faulty
            ],
        )


def _same(one: str, other: str) -> bool:
    return normal(one) == normal(other)
