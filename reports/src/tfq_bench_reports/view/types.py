"""The view model: what a report says, without a word about HTML.

Text in it is plain and unescaped; templates escape it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tfq_bench.api import Execution, MetricDefinition, MetricValue
from tfq_bench_reports.view.naming import Name

__all__ = [
    "CellView",
    "Column",
    "DefinitionView",
    "DeltaView",
    "EnvironmentView",
    "Fallback",
    "KernelRow",
    "KernelsView",
    "ModelView",
    "Outcome",
    "Row",
    "RunView",
    "Share",
    "Table",
    "Trouble",
    "ValueView",
]

Outcome = Literal["ok", "partial", "failed", "skipped", "not run"]
"""`partial`: some metrics are there, and something failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a cell has no numbers, or not all of them.

    Args:
        reason: all reasons. besides: those that are not about broken images, empty without any.
        log: last lines of its log, empty when there is none.
    """

    status: Outcome
    reason: str
    besides: str = ""
    stage: str | None = None
    reproduce: str | None = None
    log: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellView:
    """One cell of the plan with everything that was measured.

    Args:
        parts: of its short name, which is unique in the run. label: the full one.
        axes: the cell's point in the grid, as in its records.
        group: cells of one group share a full-precision model and may stand in one chart.
        metrics: by metric name; speeds of simulated cells are left out.
        reference: key of the cell it is compared with.
        broken: why its images, or those it is compared with, show nothing; empty when they do.
        remark: of an external cell: what its tool says that a reader must know of the numbers.
    """

    key: str
    parts: Name
    label: str
    group: str
    execution: Execution
    status: Outcome
    axes: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, MetricValue] = field(default_factory=dict)
    definitions: Mapping[str, str] = field(default_factory=dict)
    reference: str | None = None
    environment: str = ""
    trouble: Trouble | None = None
    broken: str = ""
    remark: str = ""

    @property
    def name(self) -> str:
        """Short and unique in the run."""
        return str(self.parts)

    @property
    def quantized(self) -> bool:
        """True for cells that are compared with full precision."""
        return self.execution != "full-precision"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaView:
    """Difference to full precision.

    Args:
        span: its interval, empty without one.
        word: `better`, `worse`, `no measurable difference`, ... : never colour alone. Over seeds it
            says for how many of them.
        agreed: the word without that, empty when the seeds do not agree on one.
    """

    text: str
    word: str
    agreed: str
    span: str = ""
    paired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueView:
    """One number in a table.

    Args:
        around: its interval; the lowest and the highest value when it is the mean over seeds.
        mark: set when its definition is not the column's only one.
        seeds: which seeds it rests on, where that is not all of the row.
    """

    text: str
    around: str
    sort: float
    n: int
    mark: int | None = None
    delta: DeltaView | None = None
    seeds: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One metric of a table; `marks` are numbers of its definitions in the glossary."""

    metric: str
    unit: str
    direction: str
    n: str
    marks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of a table: one cell, or cells that show the same, or the seeds of one.

    Args:
        name: of all its cells together.
        cells: those that it stands for.
        badges: how the cells that its name names were executed.
        note: why a value is absent on purpose, or what the row stands for besides its name.
        trouble: the cell without numbers that the row is about.
    """

    name: str
    cells: tuple[CellView, ...]
    badges: tuple[Execution, ...]
    values: tuple[ValueView | None, ...]
    note: str = ""
    trouble: CellView | None = None

    @property
    def executions(self) -> tuple[Execution, ...]:
        """How its cells were executed, each once."""
        return tuple(dict.fromkeys(cell.execution for cell in self.cells))


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Metrics of one family.

    Args:
        each: a row for every seed by itself, of the rows that are means over seeds.
    """

    key: str
    title: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    each: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """The tables of one model; numbers of different models never share one.

    Args:
        options: of the model in words, empty when it has none.
    """

    name: str
    options: str
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRow:
    """One kernel: how many layers use it, and its share of their multiply-accumulates."""

    kernel: str
    bits: str
    layers: int
    share: float
    calls: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Part of a network's multiply-accumulates in [0, 1] that runs at some bit width."""

    name: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """Layers without a kernel, and why."""

    reason: str
    layers: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many layers fall back for this reason."""
        return len(self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelsView:
    """What one cell really ran.

    Args:
        tools: of an external cell, with their versions. settings: that they were called with.
    """

    cell: CellView
    kernels: tuple[KernelRow, ...]
    shares: tuple[Share, ...]
    fallbacks: tuple[Fallback, ...]
    tools: str = ""
    settings: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionView:
    """A glossary entry; `parameters` is JSON text."""

    number: int
    id: str
    definition: MetricDefinition
    direction: str
    parameters: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentView:
    """Where cells ran: a sentence, and every captured fact as (name, value)."""

    id: str
    sentence: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """Everything a report says about one run, images aside.

    Args:
        images: how many images a cell has, None when nothing says so.
        settings: (name, value) of sampling, calibration and timing.
    """

    name: str
    plan: str
    summary: str
    cells: tuple[CellView, ...]
    models: tuple[ModelView, ...]
    kernels: tuple[KernelsView, ...]
    glossary: tuple[DefinitionView, ...]
    environments: tuple[EnvironmentView, ...]
    plugins: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    suite: str
    commands: tuple[str, ...]
    images: int | None

    def cell(self, key: str | None) -> CellView | None:
        """The cell with this key."""
        return next((cell for cell in self.cells if cell.key == key), None)
