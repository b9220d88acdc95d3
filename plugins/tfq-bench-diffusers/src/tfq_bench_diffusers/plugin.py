"""What this distribution offers to the host. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

from tfq_bench import api

__all__: list[str] = []


@api.hookimpl
def tfq_models() -> Iterator[api.ModelProvider]:
    """Nothing yet."""
    yield from ()
