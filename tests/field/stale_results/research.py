"""A research project as people have them: its entry point in one module, its code in a package."""

import importlib
import sys

SUITE = """\
schema = 1
suite = {name = "field", threads = 1}
sampling = {steps = 2, images = 2, batch = 2, shard = 2}
calibration = {images = 1, batch = 1}
model = [{name = "tiny"}]
quantizer = [{name = "fp"}, {name = "mine", wbits = 8, abits = 8}]
backend = [{name = "simulate"}]
metric = [{name = "bits"}, {name = "mean"}]
"""

WRAPPER = """
from tfq_bench import api

@api.hookimpl
def tfq_quantizers():
    yield api.QuantizerProvider(name="mine", summary="", factory="research.method:Mine")

@api.hookimpl
def tfq_metrics():
    yield api.MetricProvider(name="mean", summary="", factory="research.metric:Mean")
"""

METHOD = """
import os
from typing import TYPE_CHECKING

from research.ranges import STEPS
from tfq_bench.quant import RoundToNearest

if TYPE_CHECKING:
    from research.annotations import Nothing


class Mine(RoundToNearest):
    def __init__(self, *, scheme):
        super().__init__(scheme=scheme, calibration_steps=STEPS)
"""

METRIC = """
from tfq_bench import api

DEFINITION = api.MetricDefinition(
    name="mean", unit="", direction="none", summary="Mean pixel.", parameters={}
)


class Mean:
    def evaluate(self, inputs):
        value = float(inputs.images.mean())
        return (api.MetricValue(definition=DEFINITION, value=value, n=len(inputs.images)),)
"""


def forget(package):
    """What a new process would not have: modules of a package as they were before an edit."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
    importlib.invalidate_caches()
