"""Loading without progress bars: a run shows its own, and a log has no use for others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["no_bars"]


@contextmanager
def no_bars() -> Iterator[None]:
    """No bars of diffusers and transformers inside; warnings stay, they may tell of weights.

    Both libraries' settings are afterwards what they were.
    """
    libraries = [_logging_of(name) for name in ("diffusers", "transformers")]
    shown = [library for library in libraries if library and library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


def _logging_of(library: str) -> Any:
    """The library's own logging module; None when it is not installed."""
    with suppress(ImportError):
        if library == "diffusers":
            from diffusers.utils import logging as found
        else:
            from transformers.utils import logging as found
        return found
    return None
