"""Property tests in two lengths: short in every test run, long on request.

    @fuzz(40)                      # 40 cases; TFQ_FUZZ=25 makes it 1,000
    @given(st.text())
    def test_...(): ...

Cases are drawn from a fixed seed, so that a failure repeats and a pass is no luck of the day.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings

__all__ = ["fuzz"]


def fuzz(cases: int) -> Callable[[Any], Any]:
    """A decorator that runs a hypothesis test `cases` times, or `TFQ_FUZZ` times as many."""
    return settings(
        max_examples=cases * int(os.environ.get("TFQ_FUZZ", "1")),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
