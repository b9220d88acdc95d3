"""What crosses between host, plugins, store and report: plain data, without torch.

Here: cells, topology, calibration data, records, tasks; models and networks have modules of their
    own (`types.models`, `types.networks`).
Not here: what plugins implement (`protocols`) and how they describe themselves (`providers`).
Imports: providers.
"""

from tfq_bench.types.calibration import CalibrationData, CalibrationNeeds, Guidance
from tfq_bench.types.cells import FULL_PRECISION, Cell, Component, Scheme
from tfq_bench.types.records import (
    SANITY,
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
    "Guidance",
    "Interval",
    "Layer",
    "LayerKind",
    "MeasuredBy",
    "MetricDefinition",
    "MetricValue",
    "Record",
    "Role",
    "Scheme",
    "Status",
    "Topology",
]
