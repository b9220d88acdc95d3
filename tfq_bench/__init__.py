"""TFQ-Bench: measure and run quantized diffusion models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfq_bench.version import __version__

if TYPE_CHECKING:
    from tfq_bench.store.frames import load_records

__all__ = ["__version__", "load_records"]


def __getattr__(name: str) -> Any:
    # Lazily, because pandas alone costs more than everything else that the package imports.
    if name == "load_records":
        from tfq_bench.store.frames import load_records

        return load_records
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
