"""Why a cell has no numbers, or not all: reasons from its records, the end of its log."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tfq_bench.api import Record
from tfq_bench.store import RunFolder
from tfq_bench_reports.view.redact import redact
from tfq_bench_reports.view.types import Outcome, Trouble

if TYPE_CHECKING:
    from tfq_bench.stats import CellResults

__all__ = ["LOG_LINES", "cut", "trouble_of"]

LOG_LINES = 30
LOG_CHARACTERS = 2_000
"""Of one line."""
LOG_BYTES = 10_000_000
"""Of the end of a log that are looked at."""


def trouble_of(
    run: RunFolder, planned: Mapping[str, Any], facts: CellResults, records: list[Record]
) -> Trouble | None:
    """Why a cell has no numbers, or not all of them; None when nothing is missing."""
    bad = [record for record in records if record.status != "ok"]
    measured = any(record.metric is not None for record in records)
    if bad:
        record = next((r for r in bad if r.failed_metric is None), bad[-1])
        status: Outcome = "skipped" if record.status == "skipped" else "failed"
        return Trouble(
            status="partial" if measured else status,
            reason=_reasons(bad),
            besides=_reasons(record for record in bad if not record.broken_images),
            stage=record.stage,
            reproduce=redact(record.reproduce) if record.reproduce else None,
            log=_log_tail(run, planned["key"]) if status == "failed" else "",
        )
    if records and facts.status == "unfinished":
        return Trouble(
            status="partial",
            reason=f"Not finished: {facts.reason}. Run the suite again to finish it.",
        )
    if records:
        return None
    if planned.get("status") == "skipped":
        return Trouble(status="skipped", reason=redact(planned.get("reason") or "no reason given"))
    return Trouble(
        status="not run",
        reason="The run has no record of this cell. Run the suite again to finish it.",
    )


def _reasons(records: Iterable[Record]) -> str:
    return cut(redact("; ".join(map(_reason, records))), 10 * LOG_CHARACTERS)


def _reason(record: Record) -> str:
    reason = record.reason or "no reason was recorded"
    return reason if record.failed_metric is None else f"metric '{record.failed_metric}': {reason}"


def _log_tail(run: RunFolder, key: str) -> str:
    try:
        with run.log_path(key).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""  # a missing log is no reason to refuse the report
    tail = redact("\n".join(lines[-LOG_LINES:])).split("\n")
    return "\n".join(cut(line, LOG_CHARACTERS) for line in tail)


def cut(text: str, limit: int) -> str:
    """`text`, of which no more than `limit` characters are shown."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters)"
