"""A suite file written from choices, with a comment on what each number means and costs."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tfq_bench.foreign.text import printable
from tfq_bench.plan.suite import load_suite
from tfq_bench.plan.suite_choices import FULL, PATTERN_OF_DEFAULTS, Choices, Widths, listed_bits
from tfq_bench.plan.suite_format import SCHEMA
from tfq_bench.types import SANITY, Option

if TYPE_CHECKING:
    from tfq_bench.host.table import PluginTable
    from tfq_bench.providers import BackendProvider, ModelProvider, QuantizerProvider

__all__ = ["drafted"]

WIDTH = 100

LARGE_GMAC = 50.0
"""Of a network call for one image; from here on memory holds one image a call, not sixteen."""

QUICK = "quick"
"""The least effort of quantizers that have an option `preset`."""


def drafted(name: str, choices: Choices, table: PluginTable) -> str:
    """The text of a suite called `name`.

    Args:
        choices: complete, see `suite_choices.chosen`.
    """
    return "\n".join(_lines(name, choices, table)) + "\n"


def _lines(name: str, choices: Choices, table: PluginTable) -> Iterator[str]:
    model: ModelProvider = table.get("model", choices.model)
    quantizers: list[QuantizerProvider] = [table.get("quantizer", n) for n in choices.quantizers]
    widths = " and ".join(f"W{w}A{a}" for w, a in choices.bits)
    against = f"{', '.join(choices.quantizers)} at {widths}" if quantizers else "full precision"
    summary = f"{against} on {choices.model}, device {choices.device}"
    yield from _comment(
        f"{printable(summary)}. Written by 'tfq-bench init'; it is yours to change. 'tfq-bench "
        f"plan {name}.toml' says what it would do and cost, 'tfq-bench run {name}.toml' does it, "
        f"into runs/{name}. What stands behind a '#' is not read."
    )
    yield from _entry("schema", SCHEMA, "version of the format")
    yield from _entry(
        "seeds", [0], "of calibration; with [0, 1, 2] everything is quantized and drawn three times"
    )
    yield from _head(name, summary, choices)
    yield from _numbers(choices, model, quantizers, table)
    yield from _model(choices, model)
    yield from _quantizers(choices, quantizers)
    yield from _backends(choices, table, external=all(one.external for one in quantizers))
    yield from _metrics(choices, table)


def _head(name: str, summary: str, choices: Choices) -> Iterator[str]:
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable else os.cpu_count() or 1
    yield from ("", "[suite]")
    yield from _entry("name", name, "names the run folder")
    yield from _entry("summary", printable(summary), "for listings")
    yield from _entry("device", choices.device, "where networks run: cpu, or cuda for a GPU")
    yield from _entry(
        "threads",
        min(cores, 8),
        f"CPU threads of a task, of {cores} cores here; results of other threads count apart",
    )


def _numbers(
    choices: Choices, model: ModelProvider, quantizers: list[Any], table: PluginTable
) -> Iterator[str]:
    example = load_suite(PATTERN_OF_DEFAULTS)
    large = model.gmac >= LARGE_GMAC
    images, steps = choices.images, int(example.sampling["steps"])
    batch = 1 if large else min(images, int(example.sampling["batch"]))
    tmac = images * steps * model.gmac / 1e3
    yield from ("", "[sampling]")
    yield from _comment(
        f"A cell costs images x steps network calls of {model.gmac:g} GMAC an image: {tmac:.3g} "
        f"TMAC here, twice that with classifier-free guidance. This suite has "
        f"{_cells(choices, quantizers, table)}. 'plan' counts again after a change."
    )
    others = f"also: {', '.join(model.samplers[1:])}" if model.samplers[1:] else "the only one"
    yield from _entry("sampler", model.samplers[0], others)
    yield from _entry("steps", steps, "network calls for an image")
    yield from _entry(
        "images",
        images,
        "of each cell; dozens compare cells image by image, to rank by FD takes thousands",
    )
    yield from _entry("batch", batch, "images in a network call; memory grows with it")
    yield from _entry(
        "shard", min(images, 64), "images in a task, which is what a stop loses at most"
    )
    yield from _entry("seed", example.sampling["seed"], "of the noise, the same for every cell")
    if quantizers:
        yield from ("", "[calibration]")
        yield from _entry(
            "images",
            example.calibration["images"],
            "that methods may look at; time and memory of quantizing grow with it",
        )
        yield from _entry("batch", 1 if large else example.calibration["batch"], "images in a call")
        yield from _entry("seed", example.calibration["seed"], "of their noise, not that of images")
    if any(table.get("metric", one).timed for one in choices.metrics):
        yield from ("", "[timing]")
        yield from _entry(
            "batch", 1 if large else example.timing["batch"], "images in a timed call"
        )
        yield from _entry("warmup", example.timing["warmup"], "calls before the clock runs")
        yield from _entry(
            "rounds", example.timing["rounds"], "timed calls of every cell, in turns; at least 3"
        )


def _cells(choices: Choices, quantizers: list[Any], table: PluginTable) -> str:
    """How many there are, one of full precision among them."""
    kernels = [n for n in choices.backends if table.get("backend", n).execution == "lowered"]
    backends = len(kernels) or len(choices.backends)
    count = 1 + sum(
        len(choices.bits_of(one)) * (1 if one.external else backends) for one in quantizers
    )
    return f"{count} cells" if count > 1 else "one cell"


def _model(choices: Choices, model: ModelProvider) -> Iterator[str]:
    yield from ("", "[[model]]")
    yield from _entry("name", choices.model, model.summary)
    if choices.source:
        yield from _entry("source", choices.source, "where its weights are")
    yield from _unset(option for option in model.options if option.name != "source")


def _quantizers(choices: Choices, quantizers: list[QuantizerProvider]) -> Iterator[str]:
    yield from ("", "[[quantizer]]")
    yield from _entry("name", FULL, "full precision, which all others are compared with")
    for provider, name in zip(quantizers, choices.quantizers, strict=True):
        bits = choices.bits_of(provider)
        for abits in dict.fromkeys(a for _, a in bits):
            yield from _quantizer(choices, provider, name, [one for one in bits if one[1] == abits])


def _quantizer(
    choices: Choices, provider: QuantizerProvider, name: str, bits: list[Widths]
) -> Iterator[str]:
    yield from ("", "[[quantizer]]")
    yield from _entry("name", name, provider.summary)
    yield from _entry(
        "wbits",
        [w for w, _ in bits],
        f"of weights, a cell for each; it offers {listed_bits(provider.wbits)}",
    )
    yield from _entry(
        "abits", bits[0][1], f"of activations; it offers {listed_bits(provider.abits)}"
    )
    if not provider.external:
        policies = ", ".join(provider.policies)
        yield from _entry(
            "policy",
            choices.policy or provider.policies[0],
            f"which layers keep more bits; one of {policies}",
        )
    quick = [one for one in provider.options if one.name == "preset" and QUICK in one.choices]
    for option in quick:
        listed = ", ".join(map(str, option.choices))
        yield from _entry(
            "preset",
            QUICK,
            f"{option.help.rstrip('.')}. One of {listed}; without this line {option.default}",
        )
    others = [one.name for one in provider.options if one not in quick]
    if others:
        yield from _comment(f"Its other options: {', '.join(others)}.")


def _backends(choices: Choices, table: PluginTable, *, external: bool) -> Iterator[str]:
    if external:  # such tools execute by themselves, and nothing else is quantized
        return
    found: list[BackendProvider] = [table.get("backend", name) for name in choices.backends]
    kernels = any(provider.execution == "lowered" for provider in found)
    for name, provider in zip(choices.backends, found, strict=True):
        yield from ("", "[[backend]]")
        yield from _entry("name", name, provider.summary)
        if provider.execution == "lowered":
            yield from _entry("optional", True, "left out, with the reason, where it cannot run")
        elif kernels:
            yield from _entry("standby", True, "only for what no other backend here can execute")
        yield from _unset(provider.options)


def _metrics(choices: Choices, table: PluginTable) -> Iterator[str]:
    for name in choices.metrics:
        yield from ("", "[[metric]]")
        yield from _entry("name", name, table.get("metric", name).summary)
    there = {SANITY, *(name.rpartition(":")[2] for name in choices.metrics)}
    others = [one for name, one in table.alone("metric").items() if name not in there]
    if not others:
        return
    yield ""
    yield from _comment(
        "Other metrics that are installed. Some need files ('tfq-bench assets list') or statistics "
        "of a reference set. Every run has 'sanity'."
    )
    for provider in others:
        yield "# [[metric]]"
        yield from (
            line if line.startswith("#") else f"# {line}"
            for line in _entry("name", provider.name, provider.summary)
        )


def _unset(options: Iterable[Option]) -> Iterator[str]:
    """Options at their default, as comments."""
    for option in options:
        if option.default is not None:
            choices = f" One of {', '.join(map(str, option.choices))}." if option.choices else ""
            text = _entry(option.name, option.default, f"{option.help.rstrip('.')}.{choices}")
            yield from (line if line.startswith("#") else f"# {line}" for line in text)


def _entry(key: str, value: object, comment: str) -> Iterator[str]:
    """`key = value  # comment`, the comment above where a line cannot hold both."""
    comment = printable(comment)
    line = f"{_value(key, value)}  # {comment}"
    if len(line) <= WIDTH - 2:
        yield line
    else:
        yield from _comment(comment)
        yield _value(key, value)


def _value(key: str, value: object) -> str:
    import tomlkit

    return f"{key} = {tomlkit.item(value).as_string()}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )
