"""The questions of `tfq-bench init` on a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from tfq_bench.errors import TfqError, UsageError
from tfq_bench.foreign.text import printable
from tfq_bench.plan.suite_choices import (
    FULL,
    Choices,
    chosen,
    models_with_files,
    parsed_bits,
    parsed_count,
)

if TYPE_CHECKING:
    from tfq_bench.host.table import PluginTable

__all__ = ["asked"]

T = TypeVar("T")


def asked(table: PluginTable) -> Choices:
    """What is answered; an answer that cannot be used is asked for again, with the reason.

    Raises:
        UsageError: there is no terminal any more.
    """
    usual = chosen(Choices(), table)
    print("A suite in a few answers. Enter takes what stands in brackets.")
    model = _answer(
        "model",
        models_with_files(table),
        [usual.model],
        lambda words: chosen(Choices(model=_one(words)), table).model,
    )
    options = {option.name: option.default for option in table.get("model", model).options}
    source = ""
    if options.get("source") == "":  # else it knows where its weights are
        source = _answer("folder or hub id of its weights", (), [], _one)
    offered = table.alone("quantizer")
    methods = [name for name, one in offered.items() if name != FULL and not one.wraps]
    quantizers = _answer(
        "quantizers",
        methods,
        usual.quantizers,
        lambda words: chosen(Choices(quantizers=tuple(words)), table).quantizers,
    )
    bits = _answer(
        "bits of weights and activations",
        (),
        [f"W{w}A{a}" for w, a in chosen(Choices(quantizers=quantizers), table).bits],
        lambda words: (
            chosen(Choices(quantizers=quantizers, bits=tuple(map(parsed_bits, words))), table).bits
        ),
    )
    images = _answer(
        "images of each cell", (), [str(usual.images)], lambda words: parsed_count(_one(words))
    )
    device = _answer(
        "device",
        ("cpu", "cuda"),
        [usual.device],
        lambda words: chosen(Choices(device=_one(words)), table).device,
    )
    return Choices(
        model=model,
        source=source,
        quantizers=quantizers,
        bits=bits,
        images=images,
        device=device,
    )


def _answer(
    what: str, offered: Iterable[str], usual: Sequence[str], read: Callable[[list[str]], T]
) -> T:
    offered = ", ".join(offered)
    choice = f" ({offered})" if offered else ""
    brackets = f" [{' '.join(usual)}]" if usual else ""
    while True:
        try:
            words = re.split(r"[,\s]+", input(f"{what}{choice}{brackets}: ").strip())
        except EOFError:
            raise UsageError("init: no answer came. Say --yes for what is usual.") from None
        try:
            return read([word for word in words if word] or list(usual))
        except TfqError as error:
            print(f"  {printable(error)}")


def _one(words: list[str]) -> str:
    if len(words) != 1:
        raise UsageError(f"expected one answer, found {len(words)}.")
    return words[0]
