"""The providers of the plugins that were found: by kind and name, made and called with care."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tfq_bench.assets.declared import Asset
from tfq_bench.errors import (
    BrokenPlugin,
    IncompatiblePlugin,
    PluginConflict,
    PluginError,
    SuiteError,
    TfqError,
    nearest,
)
from tfq_bench.foreign import interrupts
from tfq_bench.host.answers import held_to_protocol
from tfq_bench.host.described import shown
from tfq_bench.host.discovery.installed import same
from tfq_bench.host.hookspecs import REGISTRATIONS
from tfq_bench.host.inspection import BUILTIN, Draft, Offer, PluginInfo, cause, out_of_memory
from tfq_bench.host.wrapping import SIGN, WrappedQuantizer, wrapped
from tfq_bench.providers import API, Provider, QuantizerProvider
from tfq_bench.types import OptionValue

__all__ = ["PluginTable"]

MAX_ASSETS = 1000
"""Of one provider with its options."""


class PluginTable:
    """Every plugin that was found, and the providers of those that work.

    Args:
        drafts: what `plugins.discover` found, in its order.
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

    def alone(self, kind: str) -> dict[str, Any]:
        """The usable providers of `kind` by name, without those that share their name."""
        usable = [offer.provider for offer in self._of(kind) if not offer.reason]
        count = Counter(provider.name for provider in usable)
        return {
            one.name: one
            for one in sorted(usable, key=lambda provider: provider.name)
            if count[one.name] == 1
        }

    def get(self, kind: str, name: str) -> Any:
        """The provider of `kind` called `name` or ``distribution:name``.

        A quantizer may be one on top of another, ``ptqd+rtn``.

        Raises:
            SuiteError: nothing of that name; offers the nearest, and names plugins with faults. Or
                a quantizer that wraps and nothing to wrap, or the other way round.
            PluginConflict: two distributions offer it and `name` does not choose.
            IncompatiblePlugin, BrokenPlugin: it is offered, but cannot be used.
        """
        outer, sign, inner = name.partition(SIGN)
        if kind == "quantizer" and sign:
            return wrapped(self._find(kind, outer), self.get(kind, inner))
        provider = self._find(kind, name)
        if isinstance(provider, QuantizerProvider) and provider.wraps:
            raise SuiteError(
                f"quantizer '{name}' changes what another one makes: write it in front of that "
                f"one's name, such as '{name}{SIGN}rtn'.",
                component=f"{kind} '{name}'",
            )
        return provider

    def _find(self, kind: str, name: str) -> Any:
        distribution, _, plain = name.rpartition(":")
        found = [
            offer
            for offer in self._of(kind)
            if offer.provider.name == plain
            and (not distribution or same(offer.plugin.distribution, distribution))
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
        """`"distribution==version"` of the plugin that offers `provider`, the first of its parts.

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
        if isinstance(provider, WrappedQuantizer):
            own, inner = provider.split(arguments)
            arguments = {**own, "base": self.create(provider.base, **inner)}
        made = self._call(provider, provider.factory, **arguments)
        return held_to_protocol(made, provider.protocol, self.where(provider))

    def assets(self, provider: Provider, options: Mapping[str, OptionValue]) -> tuple[Asset, ...]:
        """The files that a provider needs on disk with these options, found or not.

        Raises:
            TfqError: what the plugin's function says itself.
            BrokenPlugin: it cannot be imported, raises anything else, or returns other things.
        """
        if isinstance(provider, WrappedQuantizer):
            own, inner = provider.split(dict(options))
            return (*self.assets(provider.wrapper, own), *self.assets(provider.base, inner))
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
        provider = provider.parts[0]
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
