"""The products that a search is asked for: those of a run, or given by hand."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from tfq_bench.api import NothingToDo, StoreError, UsageError, harmless, nearest
from tfq_bench.store import RunFolder
from tfq_bench_cuda.kernels.specs import Ending, padded
from tfq_bench_cuda.products import SQUARE, Product

__all__ = ["conv", "linear", "one_per_shape", "products_of_run"]

_ACTIVATIONS = ("silu", "gelu", "gelu-tanh", "geglu")
_WORDS = (*_ACTIVATIONS, "shift", "gate", "residual", "codes")


def products_of_run(path: Path) -> Counter[Product]:
    """Products that the run's cells of backend `cuda` have lowered, and how many there are of each.

    Raises:
        StoreError: there is no run, or a result is damaged or not as this version writes it.
        NothingToDo: no cell of backend `cuda` is lowered yet.
    """
    run = RunFolder.open(path)
    found: Counter[Product] = Counter()
    lowered = False
    for cell in run.plan()["cells"]:
        key = cell["keys"].get("lower")
        if cell["axes"].get("backend") != "cuda" or key is None:
            continue
        if not run.artefacts.has("lower", key):
            continue
        lowered = True
        details = run.artefacts.result("lower", key).get("details")
        # The most of any cell: cells of one model have the same products.
        found |= _listed(details, run.artefacts.path("lower", key))
    if not lowered:
        raise NothingToDo(
            f"'{path}': no cell of backend 'cuda' is lowered, so that nobody knows its products. "
            f"Run its suite first, or give products by hand; see 'tfq-bench-cuda tune --help'.",
            file=path,
        )
    return found


def _listed(details: Any, folder: Path) -> Counter[Product]:
    try:
        entries = details["products"]
        return Counter({Product.from_json(entry): int(entry["count"]) for entry in entries})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"'{folder / 'result.json'}': expected the products of the network under 'details', "
            f"found {type(error).__name__}: {harmless(str(error))}. Another version of "
            "tfq-bench-cuda wrote it; run the suite with this one, in a new folder.",
            file=folder,
        ) from error


def linear(text: str, dtype: str) -> Product:
    """A matrix product of `ROWSxOUTPUTSxINPUTS[:ENDING]`.

    Args:
        dtype: of the result where it is no codes, and of a residual.

    Raises:
        UsageError: the text says something else.
    """
    shape, ending = _read(text, 3, "2048x1280x1280:residual", dtype)
    rows, outputs, inputs = shape
    return _checked(text, rows=rows, outputs=outputs, inputs=padded(inputs), ending=ending)


def conv(text: str, dtype: str) -> Product:
    """A 3x3 convolution that keeps the size, of `IMAGESxHEIGHTxWIDTHxINPUTSxOUTPUTS[:ENDING]`.

    Args:
        dtype: as for `linear`.

    Raises:
        UsageError: the text says something else.
    """
    shape, ending = _read(text, 5, "2x64x64x640x640:shift", dtype)
    images, height, width, inputs, outputs = shape
    if ending.activation == "geglu":
        raise UsageError(f"'{text}': a convolution has no GEGLU.")
    return _checked(
        text,
        rows=images * height * width,
        outputs=outputs,
        inputs=padded(inputs),
        ending=ending,
        geometry=SQUARE,
        size=(height, width),
    )


def one_per_shape(products: Counter[Product]) -> list[Product]:
    """The most frequent product of each shape that a tile is kept for, the most work first."""
    best: dict[Any, Product] = {}
    work: Counter[Any] = Counter()
    for product, count in products.most_common():
        best.setdefault(product.shape, product)
        work[product.shape] += product.macs * count
    return [best[shape] for shape, _ in work.most_common()]


def _read(text: str, numbers: int, example: str, dtype: str) -> tuple[list[int], Ending]:
    shape, _, words = text.partition(":")
    found = shape.split("x")
    if len(found) != numbers or not all(re.fullmatch(r"[1-9][0-9]{0,8}", one) for one in found):
        raise UsageError(
            f"expected {numbers} whole numbers as in '{example}', found '{harmless(text)}'.",
            found=text,
        )
    return [int(one) for one in found], _ending(words.split("+") if words else [], dtype)


def _ending(words: list[str], dtype: str) -> Ending:
    given: dict[str, Any] = {"out": dtype}
    for word in words:
        if word not in _WORDS:
            raise UsageError(
                f"a product ends in some of {', '.join(_WORDS)}, joined by '+'; found "
                f"'{harmless(word)}', {nearest(word, _WORDS)}",
                found=word,
            )
        if word in _ACTIVATIONS:
            given["activation"] = word
        elif word == "codes":
            given["out"] = "int8"
        else:
            given[word] = dtype if word == "residual" else True
    ending = Ending(**given)
    if ending.activation == "geglu" and ending.shift:
        raise UsageError("a GEGLU has no shift before it.")
    return ending


def _checked(text: str, **values: Any) -> Product:
    product = Product(**values)
    if product.ending.out == "int8" and product.outputs % 32:
        raise UsageError(f"'{text}': codes need a multiple of 32 outputs.", found=text)
    return product
