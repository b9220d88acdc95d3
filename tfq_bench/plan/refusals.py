"""Why a backend, or a tool that executes by itself, cannot run on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfq_bench.errors import BrokenPlugin, LoweringError, TfqError
from tfq_bench.foreign import interrupts
from tfq_bench.host.inspection import cause, out_of_memory

if TYPE_CHECKING:
    from tfq_bench.host.table import PluginTable
    from tfq_bench.providers import Provider

__all__ = ["refusal"]


def refusal(table: PluginTable, provider: Provider, made: Any, *, device: str) -> str | None:
    """Why `made`, a backend or a contestant, cannot run on `device` here; None when it can.

    Raises:
        TfqError: what its `check` says itself besides a LoweringError.
        BrokenPlugin: its `check` raises anything else.
        MemoryError: memory ran out in it.
    """
    try:
        made.check(device=device)
    except LoweringError as error:
        return str(error)
    except TfqError:
        raise
    except BaseException as error:
        if interrupts.asked_for(error) or out_of_memory(error):
            raise
        raise BrokenPlugin(
            f"{provider.kind} '{provider.name}' ({table.distribution_of(provider)}) "
            f"cannot say whether it runs here: {cause(error)}."
        ) from error
    return None
