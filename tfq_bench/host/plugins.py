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

import importlib.metadata
import logging
import os
import re
from collections.abc import Iterable

import pluggy

from tfq_bench.errors import (
    BrokenPlugin,
    IncompatiblePlugin,
    PluginConflict,
    PluginError,
    UsageError,
    nearest,
)
from tfq_bench.foreign.text import printable
from tfq_bench.host import hookspecs
from tfq_bench.host.discovery.asking import ask
from tfq_bench.host.discovery.installed import installed, same
from tfq_bench.host.inspection import BUILTIN, HOST, Draft, PluginInfo, PluginStatus, inspect
from tfq_bench.host.table import PluginTable
from tfq_bench.provenance.code_version import code_version, is_editable
from tfq_bench.version import __version__

__all__ = ["discover", "refuse_unknown"]

log = logging.getLogger("tfq_bench.host")

FIRST_HAND = (BUILTIN, "tfq_bench.testing.tiny_plugin")
"""Entry points that are the host's own code."""

ALL = "*"

_ERRORS: dict[PluginStatus, type[PluginError]] = {
    "broken": BrokenPlugin,
    "incompatible": IncompatiblePlugin,
    "conflict": PluginConflict,
}


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
    drafts = _candidates(extra, installed_too=ALL not in blocked)
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
        if not any(same(name, other) for other in known):
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
        if name != ALL and not any(same(name, other) for other in known):
            raise UsageError(f"--block: no plugin is called '{name}'; {nearest(name, known)}")


def _candidates(extra: Iterable[str], *, installed_too: bool) -> list[Draft]:
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
    named = any(same(name, other) for name in blocked for other in (info.name, info.distribution))
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
