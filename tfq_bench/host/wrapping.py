"""`ptqd+rtn` of a suite: a quantizer that changes what another one makes, and that other one.

Both keep their own distribution, options and code, all of which count; for everybody else the two
are one quantizer with the options of both and the bits and policies of the inner one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfq_bench.errors import BrokenPlugin, SuiteError
from tfq_bench.providers import Provider, QuantizerProvider
from tfq_bench.types import FULL_PRECISION

__all__ = ["SIGN", "WrappedQuantizer", "wrapped"]

SIGN = "+"
"""Between the names; no provider has it in its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedQuantizer(QuantizerProvider):
    """Two providers as one; made by the host alone.

    Args:
        wrapper: whose factory is called, with `base` made by the other.
        base: a quantizer, which may be such a pair itself.
    """

    wrapper: QuantizerProvider
    base: QuantizerProvider

    def __post_init__(self) -> None:
        """Nothing: both were checked, and the name is made of theirs."""

    @property
    def parts(self) -> tuple[Provider, ...]:
        """The wrapper, and what the base is made of."""
        return (self.wrapper, *self.base.parts)

    def split(self, arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Keyword arguments of the wrapper's factory without `base`, and of the base's."""
        shared = {option.name for option in self.options}
        inner = {option.name for option in self.base.options}
        given = {name: value for name, value in arguments.items() if name not in shared}
        own = {name: arguments[name] for name in arguments if name in shared - inner}
        return {**given, **own}, {name: arguments[name] for name in arguments if name not in own}


def wrapped(wrapper: QuantizerProvider, base: QuantizerProvider) -> WrappedQuantizer:
    """The quantizer that `wrapper+base` stands for.

    Raises:
        SuiteError: `wrapper` wraps nothing, or `base` makes no state that could be wrapped.
        BrokenPlugin: both have an option of one name.
    """
    name = f"{wrapper.name}{SIGN}{base.name}"
    if not wrapper.wraps:
        raise SuiteError(
            f"quantizer '{name}': '{wrapper.name}' changes nothing that another quantizer makes; "
            f"write '{wrapper.name}' or '{base.name}' alone."
        )
    if base.external or base.wbits == base.abits == (FULL_PRECISION,):
        raise SuiteError(
            f"quantizer '{name}': '{base.name}' makes no quantized state that '{wrapper.name}' "
            "could work on; name one that does, such as 'rtn'."
        )
    both = {option.name for option in wrapper.options} & {option.name for option in base.options}
    if both:
        raise BrokenPlugin(
            f"quantizer '{name}': both '{wrapper.name}' and '{base.name}' have an option "
            f"'{min(both)}', and a suite could not tell them apart; one of the plugins must "
            "rename its own."
        )
    return WrappedQuantizer(
        name=name,
        summary=f"{wrapper.summary} On top of: {base.summary}",
        factory=wrapper.factory,
        options=(*wrapper.options, *base.options),
        wbits=base.wbits,
        abits=base.abits,
        policies=base.policies,
        wrapper=wrapper,
        base=base,
    )
