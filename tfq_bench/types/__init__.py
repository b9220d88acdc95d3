"""What crosses between host, plugins, store and report: plain data, without torch.

Here: cells, options, topology, calibration data, records, tasks; models and networks have modules
    of their own (`types.models`, `types.networks`).
Not here: what plugins implement (`protocols`) and how they describe themselves (`providers`).
Imports: errors, foreign.
"""

from tfq_bench.types.calibration import CalibrationData, CalibrationNeeds, Guidance
from tfq_bench.types.cells import FULL_PRECISION, Cell, Component, Execution, Scheme
from tfq_bench.types.options import GivenValue, Option, OptionValue, parse_options, quoted
from tfq_bench.types.records import (
    SANITY,
    Direction,
    Interval,
    MeasuredBy,
    MetricDefinition,
    MetricValue,
    Record,
    Status,
)
from tfq_bench.types.topology import Block, Layer, LayerKind, Role, Topology

__all__ = [
    "FULL_PRECISION",
    "SANITY",
    "Block",
    "CalibrationData",
    "CalibrationNeeds",
    "Cell",
    "Component",
    "Direction",
    "Execution",
    "GivenValue",
    "Guidance",
    "Interval",
    "Layer",
    "LayerKind",
    "MeasuredBy",
    "MetricDefinition",
    "MetricValue",
    "Option",
    "OptionValue",
    "Record",
    "Role",
    "Scheme",
    "Status",
    "Topology",
    "parse_options",
    "quoted",
]
