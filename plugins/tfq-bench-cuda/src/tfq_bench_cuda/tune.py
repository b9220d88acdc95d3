"""The search for tiles: two rounds of candidates for each product, and what came of it.

Round one tries shapes of tiles in the order in which the model of their time expects them, round
two other depths and stages of the two best, products ahead, and blocks side by side. All candidates
of a round are compiled together, so that every core has work. A candidate that hangs, fails or
gives another bit is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tfq_bench.api import LoweringError
from tfq_bench_cuda.kernels.specs import Tile
from tfq_bench_cuda.kernels.tiles import TileChoice
from tfq_bench_cuda.kernels.wider import other_pipelines, other_shapes, other_ways
from tfq_bench_cuda.products import Product
from tfq_bench_cuda.watchdog import Lost

__all__ = ["GAIN", "Calls", "Finding", "search", "table"]

GAIN = 1.02
"""How many times as fast a tile must be to be kept; less is within what times vary."""

_SECONDS = 30.0
"""What one candidate may take: milliseconds on the GPU, seconds where it is compiled once more."""

_ROUNDS, _LAST_ROUNDS = 9, 25


class Calls(Protocol):
    """`Watched` around a `Stopwatch`."""

    def call(self, name: str, *args: Any, seconds: float | None = None) -> Any:
        """What the stopwatch's method gives; `Lost` when it does not come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What came of one product.

    Args:
        before: the tile that was chosen for it so far. found: the fastest.
        us_before, us_found: microseconds, taken in turns; None where nothing could be timed.
        left_out: candidates that did not run, with the reason.
    """

    product: Product
    before: Tile
    found: Tile
    us_before: float | None = None
    us_found: float | None = None
    left_out: tuple[tuple[Tile, str], ...] = ()

    @property
    def ratio(self) -> float:
        """How many times as fast; 1 where nothing could be timed."""
        if self.us_before is None or self.us_found is None:
            return 1.0
        return self.us_before / self.us_found

    @property
    def better(self) -> bool:
        """Whether the tile is worth being kept."""
        return self.ratio >= GAIN


def search(
    products: Sequence[Product],
    arch: str,
    calls: Calls,
    *,
    shapes: int,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Finding]:
    """A finding for each product, as soon as it is there.

    Args:
        products: of different shapes.
        arch: a value of `ARCHITECTURES`.
        shapes: how many shapes of tiles round one tries for a product.
        say: is told what is going on.

    Raises:
        LoweringError: nothing can be compiled, or the file of tiles cannot be read.
    """
    searches = [_Search(product, arch, calls) for product in products]
    for one in searches:
        one.ask(_first(one.product, arch)[:shapes])
    say(_compiled(searches, calls))
    for number, one in enumerate(searches):
        one.time()
        say(f"{number + 1} of {len(searches)}: {one}")
        one.ask(
            other
            for tile in one.fastest[:2]
            for other in (
                *other_pipelines(tile, one.product.inputs, arch, accumulators=one.product.sums),
                *([replace(tile, ahead=True)] if arch == "sm_90a" else []),
            )
        )
        one.ask(other_ways(one.product.inputs, arch, accumulators=one.product.sums))
    say(_compiled(searches, calls))
    for number, one in enumerate(searches):
        one.time()
        say(f"{number + 1} of {len(searches)}: {one}")
        yield one.finding()


def table(findings: Sequence[Finding]) -> str:
    """Markdown: a line for each product."""
    header = ["product", "tile before", "us", "tile found", "us", "times as fast", "kept"]
    rows = [
        [
            str(one.product),
            _named(one.before),
            _number(one.us_before),
            "the same" if one.found == one.before else _named(one.found),
            _number(one.us_found),
            f"{one.ratio:.3f}" if one.us_before else "",
            "yes" if one.better else "",
        ]
        for one in findings
    ]
    rule = ["---", "---", "---:", "---", "---:", "---:", "---"]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


class _Search:
    """One product's candidates on their way."""

    def __init__(self, product: Product, arch: str, calls: Calls) -> None:
        self.product, self._calls = product, calls
        self.before = product.tile(TileChoice(arch=arch, rows=product.rows))
        self.fastest: list[Tile] = []
        self.waiting = [self.before]
        self._known: set[Tile] = {self.before}
        self._left_out: dict[Tile, str] = {}

    def __str__(self) -> str:
        found = f"{_named(self.fastest[0])} so far" if self.fastest else "no time"
        return f"{self.product}: {found}"

    def ask(self, tiles: Any) -> None:
        """Adds candidates that were not there before, to be compiled and timed."""
        new = [tile for tile in dict.fromkeys(tiles) if tile not in self._known]
        self.waiting += new
        self._known.update(new)

    def compiled(self, tile: Tile, works: bool) -> None:
        """Takes note of a candidate that does not compile."""
        if not works:
            self.leave_out(tile, "does not compile")

    def leave_out(self, tile: Tile, reason: str) -> None:
        """Takes note of why a candidate is none."""
        self._left_out[tile] = reason

    def time(self) -> None:
        """Times those that wait beside the two that were fastest so far."""
        tiles = [*self.fastest[:2], *self.waiting]
        self.waiting = []
        running = [tile for tile in tiles if tile not in self._left_out and self._runs(tile)]
        if self.before in self._left_out:
            return
        times = self._times(running, _ROUNDS)
        if times is not None:
            order = sorted(range(len(running)), key=times.__getitem__)
            self.fastest = [running[index] for index in order]

    def finding(self) -> Finding:
        """The fastest of all beside what was chosen before, once more and in turns."""
        for tile in self.fastest[:1]:
            if tile == self.before:
                times = self._times([tile], _LAST_ROUNDS)
                return self._found(tile, times and [*times, *times])
            try:
                exact = self._calls.call("exact", self.product, tile, seconds=2 * _SECONDS)
            except Lost as lost:
                self.leave_out(tile, str(lost))
            else:
                if exact:
                    return self._found(tile, self._times([self.before, tile], _LAST_ROUNDS))
                self.leave_out(tile, "does not pass the self-test")
        return self._found(self.before, None)

    def _found(self, tile: Tile, times: Sequence[float] | None) -> Finding:
        before, found = times or (None, None)
        return Finding(
            product=self.product,
            before=self.before,
            found=self.before if times is None else tile,
            us_before=before,
            us_found=found,
            left_out=tuple(self._left_out.items()),
        )

    def _runs(self, tile: Tile) -> bool:
        try:
            same = self._calls.call("same", self.product, tile, self.before, seconds=_SECONDS)
        except Lost as lost:
            self.leave_out(tile, str(lost))
            return False
        if not same:
            self.leave_out(tile, "gives other bits")
        return bool(same)

    def _times(self, tiles: Sequence[Tile], rounds: int) -> list[float] | None:
        try:
            found: list[float] = self._calls.call(
                "microseconds", self.product, tiles, rounds, seconds=2 * _SECONDS
            )
        except Lost as lost:
            for tile in tiles:
                if tile not in self.fastest:  # those have run before
                    self.leave_out(tile, str(lost))
            return None
        return found


def _first(product: Product, arch: str) -> list[Tile]:
    return other_shapes(
        product.rows,
        product.outputs,
        product.inputs,
        arch,
        taps=product.taps,
        accumulators=product.sums,
    )


def _compiled(searches: Sequence[_Search], calls: Calls) -> str:
    """Compiles all that wait; a sentence about it."""
    asked = [(one, tile) for one in searches for tile in one.waiting]
    try:
        works = calls.call("compile", [(one.product, tile) for one, tile in asked])
    except Lost as lost:
        raise LoweringError(f"kernels cannot be compiled: {lost}.") from None
    for (one, tile), fine in zip(asked, works, strict=True):
        one.compiled(tile, fine)
    return f"{sum(works)} of {len(asked)} kernels compiled for {len(searches)} products"


def _named(tile: Tile) -> str:
    return f"{tile}, {tile.stages} stages"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
