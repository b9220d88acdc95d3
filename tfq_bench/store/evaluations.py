"""What a metric found for a cell, as an artefact of stage `evaluate`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tfq_bench.errors import DamagedArtefact, StoreError
from tfq_bench.foreign.text import printable
from tfq_bench.store.record_json import metric_from_json, metric_to_json

if TYPE_CHECKING:
    from tfq_bench.store.artefacts import ArtefactStore
    from tfq_bench.types import MetricValue

__all__ = ["STAGE", "read_values", "write_values"]

STAGE = "evaluate"


def read_values(store: ArtefactStore, key: str) -> tuple[MetricValue, ...]:
    """The values of a finished evaluation; none when the metric has no number for the cell.

    Raises:
        DamagedArtefact: it holds something else.
        StoreError: there is none, or it cannot be read.
    """
    values = store.result(STAGE, key).get("values")
    try:
        if not isinstance(values, list):
            raise StoreError(f"it holds {printable(repr(values), 80)}.")
        return tuple(map(metric_from_json, values))
    except StoreError as error:
        where = store.path(STAGE, key) / "result.json"
        found = f"'{where}': expected the values of a metric; {error}"
        raise DamagedArtefact(found, stage=STAGE, key=key) from None


def write_values(store: ArtefactStore, key: str, values: tuple[MetricValue, ...]) -> None:
    """Stores the values of an evaluation; StoreError when there is no room."""
    result = {"values": [metric_to_json(value) for value in values]}
    text = json.dumps(result, indent=1, sort_keys=True, allow_nan=False)
    with store.create(STAGE, key) as folder:
        (folder / "result.json").write_text(f"{text}\n", "utf-8")
