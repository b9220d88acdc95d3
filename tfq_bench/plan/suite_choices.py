"""What `tfq-bench init` is told, completed with defaults and held against what is installed.

Defaults are those of the packaged quickstart, as far as they are installed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tfq_bench.errors import SuiteError, TfqError, UsageError, nearest
from tfq_bench.foreign.text import printable
from tfq_bench.plan.inventory import known_assets
from tfq_bench.plan.suite import load_suite
from tfq_bench.plan.suite_format import HEAD, SAMPLING
from tfq_bench.types import FULL_PRECISION, Option, parse_options

if TYPE_CHECKING:
    from tfq_bench.host.table import PluginTable
    from tfq_bench.providers import BackendProvider, QuantizerProvider

__all__ = [
    "FULL",
    "PATTERN_OF_DEFAULTS",
    "Choices",
    "Widths",
    "chosen",
    "listed_bits",
    "models_with_files",
    "parsed_bits",
    "parsed_count",
    "with_metrics",
]

PATTERN_OF_DEFAULTS = "quickstart"
FULL = "fp"
SIMULATED = "simulate"
USUAL_BITS = (4, 8)
_BITS = re.compile(r"W(\d{1,2})A(\d{1,2})", re.IGNORECASE)

Widths = tuple[int, int]
"""Of weights and of activations; 32 is float."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a suite is to hold. Empty, 0 or None is not chosen; `chosen` completes it.

    Args:
        source: folder or hub id of the model's weights, for models that take one.
        quantizers: besides full precision, which every suite has.
        bits: each quantizer gets those that it offers.
        policy: layer policy of every quantizer that is no external tool.
        images: a cell.
        metrics: beside `sanity`, which every run has.
    """

    model: str = ""
    source: str = ""
    quantizers: tuple[str, ...] = ()
    bits: tuple[Widths, ...] = ()
    policy: str = ""
    images: int = 0
    device: str = ""
    backends: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()

    def bits_of(self, provider: QuantizerProvider) -> tuple[Widths, ...]:
        """Those of the chosen bits that a quantizer offers."""
        return tuple((w, a) for w, a in self.bits if w in provider.wbits and a in provider.abits)


def parsed_bits(text: str) -> Widths:
    """`W4A8` as (4, 8).

    Raises:
        UsageError: it is written otherwise.
    """
    found = _BITS.fullmatch(text.strip())
    if not found:
        raise UsageError(
            f"bits are written as W4A8, weights before activations, found '{printable(text, 40)}'."
        )
    return int(found[1]), int(found[2])


def parsed_count(text: str) -> int:
    """The images of a cell.

    Raises:
        UsageError: no whole number, or one that no suite may have.
    """
    option = next(one for one in SAMPLING if one.name == "images")
    try:
        return int(option.parse(int(text), "--images"))
    except ValueError:
        raise UsageError(
            f"--images: expected a whole number, found '{printable(text, 40)}'."
        ) from None


def chosen(given: Choices, table: PluginTable) -> Choices:
    """The choices with defaults for what is not given but metrics, see `with_metrics`.

    Raises:
        SuiteError, PluginError: something is not installed (with the nearest names), or the
            plugin cannot be used.
        UsageError: choices that do not go together.
    """
    example = load_suite(PATTERN_OF_DEFAULTS)
    device = given.device or example.device
    devices = tuple(map(str, next(one for one in HEAD if one.name == "device").choices))
    if device not in devices:
        raise UsageError(f"--device: none is called '{device}'; {nearest(device, devices)}")
    known = table.alone("quantizer")
    quantizers = given.quantizers or tuple(
        entry.name for entry in example.quantizers if entry.name in known
    )
    quantizers = tuple(dict.fromkeys(name for name in quantizers if name != FULL))
    found = replace(
        given,
        model=given.model or _model(table, [entry.name for entry in example.models]),
        quantizers=quantizers,
        bits=tuple(dict.fromkeys(given.bits)) or _bits(table, quantizers),
        images=given.images or int(example.sampling["images"]),
        device=device,
        backends=tuple(dict.fromkeys(given.backends)) or _backends(table, device),
        metrics=tuple(dict.fromkeys(given.metrics)),
    )
    _refuse_misfits(found, table)
    for name in given.metrics:
        table.get("metric", name)
    return found


def models_with_files(table: PluginTable) -> list[str]:
    """Models that lack no file here; a suite of another cannot be planned before it is fetched."""
    lacking = {
        user for asset, users in known_assets(table).items() if asset.path is None for user in users
    }
    return [name for name in table.names("model") if f"model '{name}'" not in lacking]


def with_metrics(choices: Choices, table: PluginTable) -> Choices:
    """The choices with the usual metrics where none is given; asks the model, which imports torch.

    Of those that compare with a reference set only the ones that the model has statistics for.
    """
    if choices.metrics:
        return choices
    known = table.alone("metric")
    usual = (entry.name for entry in load_suite(PATTERN_OF_DEFAULTS).metrics)
    found = [
        name
        for name in usual
        if name in known and _has_reference(choices, table, known[name].options)
    ]
    return replace(choices, metrics=tuple(found))


def _has_reference(choices: Choices, table: PluginTable, options: Sequence[Option]) -> bool:
    """Whether the model has what a metric with these options compares with, if it needs any."""
    defaults = {option.name: option.default for option in options}
    if not {"reference", "extractor"} <= defaults.keys():
        return True
    provider: Any = table.get("model", choices.model)
    given: dict[str, object] = {"source": choices.source} if choices.source else {}
    try:
        model = table.create(provider, **parse_options(provider.options, given, choices.model))
        return model.reference(str(defaults["extractor"])) is not None
    except TfqError:  # the plan of the suite will say it, with what to do
        return False


def _model(table: PluginTable, wanted: Sequence[str]) -> str:
    known = table.alone("model")
    if not known:
        raise SuiteError(
            "no model is installed, and a suite needs one. Install a distribution that offers one; "
            "'tfq-bench plugins list' shows what is there."
        )
    if there := [name for name in wanted if name in known]:
        return there[0]
    return next((name for name in models_with_files(table) if name in known), next(iter(known)))


def _backends(table: PluginTable, device: str) -> tuple[str, ...]:
    """The kernels for a device, those of its name where there are some, and the simulation."""
    known = table.alone("backend")
    kernels = [
        name
        for name, backend in known.items()
        if backend.execution == "lowered" and device in backend.devices
    ]
    kernels = [device] if device in kernels else kernels
    return (*kernels, *([SIMULATED] if SIMULATED in known else []))


def _bits(table: PluginTable, quantizers: Sequence[str]) -> tuple[Widths, ...]:
    """W4A8, and the first that a quantizer offers where it has not that."""
    offered = [table.get("quantizer", name) for name in quantizers]
    found = [
        USUAL_BITS
        if USUAL_BITS[0] in one.wbits and USUAL_BITS[1] in one.abits
        else (one.wbits[0], one.abits[0])
        for one in offered
    ]
    return tuple(sorted(dict.fromkeys(found), reverse=True)) or (USUAL_BITS,)


def _refuse_misfits(choices: Choices, table: PluginTable) -> None:
    model = table.get("model", choices.model)
    if choices.source and "source" not in {option.name for option in model.options}:
        raise UsageError(
            f"--source: the model '{choices.model}' has its own weights; leave it out."
        )
    for name in choices.backends:
        backend: BackendProvider = table.get("backend", name)
        if choices.device not in backend.devices:
            raise UsageError(
                f"--backend: '{name}' runs on {' and '.join(backend.devices)}, and the suite on "
                f"'{choices.device}'. Choose another backend, or --device {backend.devices[0]}."
            )
    used: set[Widths] = set()
    for name in choices.quantizers:
        used |= _fitting(choices, table.get("quantizer", name))
    left = [f"W{w}A{a}" for w, a in choices.bits if (w, a) not in used]
    if choices.quantizers and left:
        raise UsageError(f"--bits: none of the quantizers offers {' or '.join(left)}.")


def _fitting(choices: Choices, provider: QuantizerProvider) -> set[Widths]:
    """Widths that a quantizer gets.

    Raises:
        UsageError: it offers none of those chosen, or not the policy.
    """
    found = set(choices.bits_of(provider))
    if not found:
        raise UsageError(
            f"--bits: quantizer '{provider.name}' offers weights of {listed_bits(provider.wbits)} "
            f"and activations of {listed_bits(provider.abits)} bits, found "
            f"{' and '.join(f'W{w}A{a}' for w, a in choices.bits)}."
        )
    if choices.policy and not provider.external and choices.policy not in provider.policies:
        raise UsageError(
            f"--policy: quantizer '{provider.name}' has none called '{choices.policy}'; "
            f"{nearest(choices.policy, provider.policies)}"
        )
    return found


def listed_bits(bits: Sequence[int]) -> str:
    """Bit widths for a reader: `4, 8, 32 (float)`."""
    return ", ".join("32 (float)" if one == FULL_PRECISION else str(one) for one in bits)
