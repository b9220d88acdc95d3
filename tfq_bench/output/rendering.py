"""A report is written by a renderer, which is anybody's code and is not believed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfq_bench.errors import BrokenPlugin, TfqError
from tfq_bench.foreign import interrupts
from tfq_bench.host.inspection import cause, out_of_memory
from tfq_bench.store.disk import is_disk_error, store_error

if TYPE_CHECKING:
    from tfq_bench.host.table import PluginTable
    from tfq_bench.providers import RendererProvider

__all__ = ["write_report"]


def write_report(
    table: PluginTable, provider: RendererProvider, runs: Sequence[Path], target: Path
) -> None:
    """Has a renderer write `target`.

    Raises:
        StoreError: a run cannot be read, or `target` cannot be written.
        BrokenPlugin: the renderer raised, or wrote nothing.
    """
    renderer, before = table.create(provider), _state(target)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where results are read by scripts
            renderer.render(runs, target)
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
