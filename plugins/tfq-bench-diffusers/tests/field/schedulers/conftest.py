"""Schedulers of diffusers compute in float64."""

from __future__ import annotations

import sys

import diffusers
import numpy as np
import pytest
import torch

from tfq_bench_diffusers.samplers.classes import CLASSES

from .both_sides import DoublePrecision


@pytest.fixture(scope="module", autouse=True)
def _in_double():
    modules = {sys.modules[getattr(diffusers, kind).__module__] for kind in CLASSES}
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.setattr(module, "torch", DoublePrecision(torch))
            patch.setattr(module, "np", DoublePrecision(np))
        yield
