"""What a run will do: cells, their content keys, and the skips with reasons.

Every stage of a cell has a key made of everything its result depends on, so that equal work is
found finished and only changed work is done again:

    calibrate ⊂ quantize ⊂ lower ⊂ sample (per shard) ⊂ evaluate (per metric);  lower ⊂ measure
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tfq_bench.errors import StoreError, SuiteError, UsageError
from tfq_bench.foreign.text import printable
from tfq_bench.keys import canonical
from tfq_bench.provenance.running_code import RunningCode
from tfq_bench.types import Cell, Component, Execution, MeasuredBy

if TYPE_CHECKING:
    from tfq_bench.plan.suite import SuiteSpec

__all__ = ["EAGER", "EXTERNAL", "SCHEMA", "Plan", "PlannedCell", "StageKeys", "cell_axes"]

SCHEMA = 2

EAGER = "eager"
"""What executes a full-precision cell: the model's own network, no backend."""

EXTERNAL = "external"
"""What executes the cell of a contestant: the tool that quantized it, no backend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageKeys:
    """Where each stage of a cell leaves its artefact.

    Args:
        calibrate, measure: None when the cell has no such stage.
        sample: one per shard, in the order of `Plan.shards`.
        evaluate: one per metric, in the order of `Plan.metrics`.
    """

    calibrate: str | None
    quantize: str
    lower: str
    sample: tuple[str, ...]
    measure: str | None
    evaluate: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCell:
    """A cell, what is known about it before it runs, and why it is left out if it is.

    Args:
        axes: see `cell_axes`; files among the options are named by their content.
        made_of: for each stage the ids, in `Plan.ingredients`, of all that its result depends on;
            for `evaluate` one list per metric.
        reference: key of the full-precision cell it is compared with, None for that cell itself
            or when the suite has none.
        skip: reason, None when it will run.
        plugins: `distribution==version` of everything it uses, a contestant's tools among it.
    """

    cell: Cell
    axes: Mapping[str, str]
    execution: Execution
    keys: StageKeys
    made_of: Mapping[str, Any]
    reference: str | None
    skip: str | None
    plugins: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """One entry of `plan.json`'s `cells`."""
        return {
            "key": self.cell.key,
            "label": self.cell.label,
            "variant": self.cell.variant,
            "axes": dict(self.axes),
            "status": "skipped" if self.skip else "planned",
            "reason": self.skip,
            "execution": self.execution,
            "reference": self.reference,
            "plugins": list(self.plugins),
            "keys": {
                stage: list(keys) if isinstance(keys, tuple) else keys
                for stage, keys in asdict(self.keys).items()
            },
            "made_of": {
                stage: [list(one) if isinstance(one, tuple) else one for one in ids]
                for stage, ids in self.made_of.items()
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a run will do.

    Args:
        id: digest of the suite's content and every key; equal ids mean the same work.
        shards: index ranges [start, stop), fixed here so that workers never change a result.
        metrics: components in suite order.
        measured_by: what of each metric belongs to the meaning of its numbers.
        gmac: 1e9 multiply-accumulates of one network call for one image, by model name.
        code: what `check_code` looks at.
        ingredients: what results are made of, by id: `{"what": "quantizer 'rtn'", fact: value}`.
        notes: what to know of the numbers before they are there, and what the suite asks for in
            vain; a sentence each.
    """

    id: str
    spec: SuiteSpec
    cells: tuple[PlannedCell, ...]
    shards: tuple[tuple[int, int], ...]
    metrics: tuple[Component, ...]
    measured_by: tuple[MeasuredBy, ...]
    gmac: Mapping[str, float]
    ingredients: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...] = ()
    code: RunningCode = field(default_factory=RunningCode, compare=False, repr=False)

    def check_code(self) -> None:
        """Returns when code and files that options name are those that were planned with.

        Modules are imported when they are first used, so that an edit may or may not be in what a
        process computes.

        Raises:
            StoreError: a file of it was edited since; going on would store results of it under the
                keys of the code before.
        """
        path = self.code.edited()
        if path is not None:
            raise StoreError(
                f"'{path}' was edited after the run was planned, so that nobody knows which of its "
                "states makes a result. Nothing finished is lost; repeat the command."
            )

    def to_json(self) -> dict[str, Any]:
        """The content of `plan.json`; `store.RunFolder` and scripts read it."""
        return {
            "schema": SCHEMA,
            "id": self.id,
            "suite": {
                "name": self.spec.name,
                "summary": self.spec.summary,
                "device": self.spec.device,
                "threads": self.spec.threads,
            },
            "folder": str(self.spec.folder),
            "sampling": dict(self.spec.sampling),
            "calibration": dict(self.spec.calibration),
            "timing": dict(self.spec.timing),
            "metrics": [asdict(metric) for metric in self.metrics],
            "shards": [list(shard) for shard in self.shards],
            "cells": [planned.to_json() for planned in self.cells],
            "ingredients": {name: dict(facts) for name, facts in self.ingredients.items()},
            "notes": list(self.notes),
        }

    def runnable(self) -> tuple[PlannedCell, ...]:
        """The cells that are not skipped."""
        return tuple(planned for planned in self.cells if planned.skip is None)

    def chosen(self, texts: Collection[str]) -> frozenset[str]:
        """Keys of the cells whose label contains one of `texts`, in any case of letters.

        Also of the cells that they are compared with. All cells without a text.

        Raises:
            UsageError: there is no such cell.
        """
        found = [
            planned
            for planned in self.cells
            if not texts or any(text.lower() in planned.cell.label.lower() for text in texts)
        ]
        if not found:
            asked = " or ".join(f"'{printable(text, 80)}'" for text in texts)
            labels = "; ".join(planned.cell.label for planned in self.cells)
            raise UsageError(f"no cell of the suite has {asked} in its label. Labels: {labels}.")
        references = {planned.reference for planned in found if planned.reference is not None}
        return frozenset({planned.cell.key for planned in found} | references)

    def find(self, key: str) -> PlannedCell:
        """The cell whose key is, or starts with, `key`; SuiteError when none or several do."""
        found = [planned for planned in self.cells if planned.cell.key.startswith(key)]
        if len(found) != 1:
            listing = ", ".join(f"{p.cell.key} ({p.cell.label})" for p in found or self.cells)
            count = "several cells start" if found else "no cell starts"
            raise SuiteError(f"{count} with '{key}'. Cells: {listing}.")
        return found[0]


def cell_axes(cell: Cell) -> dict[str, str]:
    """The cell's place in the grid as text, as records carry it."""
    return {
        "model": cell.model.name,
        "quantizer": cell.quantizer.name,
        "scheme": cell.scheme.label,
        "wbits": str(cell.scheme.wbits),
        "abits": str(cell.scheme.abits),
        "policy": cell.scheme.policy,
        "backend": cell.backend.name,
        "seed": str(cell.seed),
        "model_options": canonical(dict(cell.model.options)),
        "quantizer_options": canonical(dict(cell.quantizer.options)),
        "backend_options": canonical(dict(cell.backend.options)),
    }
