"""A report is written by a renderer, which is anybody's code and is not believed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfq_bench.errors import BrokenPlugin, TfqError, UsageError
from tfq_bench.foreign import interrupts
from tfq_bench.host.inspection import cause, out_of_memory
from tfq_bench.store.disk import is_disk_error, store_error

if TYPE_CHECKING:
    from tfq_bench.host.table import PluginTable
    from tfq_bench.providers import RendererProvider

__all__ = ["renderer_called", "write_report"]


def renderer_called(table: PluginTable, name: str, *, renders: str) -> RendererProvider:
    """The renderer of that name, see `PluginTable.get`; UsageError when it renders other things."""
    found: RendererProvider = table.get("renderer", name)
    if found.renders != renders:
        command = "history plot" if found.renders == "history" else "report"
        raise UsageError(
            f"the renderer '{name}' draws {found.renders}, expected one that draws {renders}; "
            f"'tfq-bench {command}' can use it."
        )
    return found


def write_report(
    table: PluginTable, provider: RendererProvider, what: Sequence[Any], target: Path
) -> None:
    """Has a renderer write `target`.

    Args:
        what: run folders, or series of a history with their verdicts, see `RendererProvider`.

    Raises:
        StoreError: a run cannot be read, or `target` cannot be written.
        BrokenPlugin: the renderer raised, or wrote nothing.
    """
    renderer, before = table.create(provider), _state(target)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where results are read by scripts
            renderer.render(what, target)
    except TfqError:
        raise
    except BaseException as error:
        if interrupts.asked_for(error) or out_of_memory(error):
            raise
        if is_disk_error(error, target.parent):
            raise store_error(error, target) from error
        raise BrokenPlugin(f"{table.where(provider)}: render raised {cause(error)}.") from error
    after = _state(target)
    if after is None or (target.is_file() and after == before):
        raise BrokenPlugin(f"{table.where(provider)}: render ended, and did not write '{target}'.")


def _state(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
