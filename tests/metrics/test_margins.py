"""How much worse a gate without rules lets each number of the host get.

2 % of a bounded number or of decibels is many times the loss that it shows, so these have margins
of their own; the README lists them.
"""

from dataclasses import replace

import pytest

from tfq_bench.keys import definition_id
from tfq_bench.metrics.bits import Bits
from tfq_bench.metrics.kernel_usage import KernelUsage
from tfq_bench.metrics.paired import Paired
from tfq_bench.metrics.temporal import Temporal
from tfq_bench.metrics.trajectory import Trajectory
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.stats.gate import judge
from tfq_bench.stats.results import CellResults, Measured
from tfq_bench.stats.rules import BUILT_IN
from tfq_bench.types import MetricValue

MARGINS = {
    "psnr": 0.25,
    "psnr-centred": 0.25,
    "ssim": 0.001,
    "feature-cosine": 0.001,
    "precision-efficientnet-lite0": 0.01,
    "recall-efficientnet-lite0": 0.01,
    "mac-share-low-bit": 0.0,
}
TWO_PERCENT = {
    "fd-efficientnet-lite0",
    "kd-efficientnet-lite0",
    "is-efficientnet-lite0",
    "fallback-layers",
    "parity-rms",
    "trajectory-divergence",
    "output-shift",
}
"""Numbers without an upper end, of which 2 % is a loss as large as it sounds."""


@pytest.fixture
def definitions(with_reference, host_metric):
    """The definitions of the host's metrics for a quantized cell on kernels, by name."""
    facts = {"execution": "lowered", "kernels": [], "executed": {}, "parity": {"relative": 0.0}}
    inputs = replace(
        with_reference,
        reference_cell="fp",
        reference_images=with_reference.images,
        network=simulate(with_reference.loaded, None),
        stages={"lower": facts},
    )
    metrics = (
        Paired(),
        host_metric("precision-recall"),
        host_metric("frechet"),
        host_metric("kernel-distance"),
        host_metric("inception-score"),
        KernelUsage(),
        Trajectory(images=2),
        Temporal(),
        Bits(),
    )
    return {
        value.definition.name: value.definition
        for metric in metrics
        for value in metric.evaluate(inputs)
    }


def test_every_number_has_the_margin_that_the_readme_states(definitions):
    """A margin that is lost, or one that a new number needs and has not, is seen here."""
    assert {n: d.margin for n, d in definitions.items() if d.margin is not None} == MARGINS
    others = {n: d for n, d in definitions.items() if n not in MARGINS}
    assert set(others) >= TWO_PERCENT
    for definition in others.values():
        assert definition.unit != "dB"
        # What is better higher has an upper end, unless it is known to have none.
        assert definition.direction != "higher" or definition.name in TWO_PERCENT


@pytest.mark.parametrize(("name", "best"), [(n, 40.0 if "psnr" in n else 1.0) for n in MARGINS])
def test_a_gate_without_rules_goes_by_the_margin(definitions, name, best):
    """From the best value on: half of the margin passes, one and a half times as much fails."""
    definition = definitions[name]

    def cell(value):
        measured = Measured(
            metric=MetricValue(definition=definition, value=value, n=100),
            definition=definition_id(definition),
            environment="e",
            hardware="h",
        )
        return CellResults(key="", label="c", axes={}, status="ok", values={name: measured})

    for share, code in ((0.5, 0), (1.5, 1)):
        loss = share * MARGINS[name] if MARGINS[name] else (share - 0.5) * 1e-6
        assert code == judge([cell(best - loss)], [cell(best)], BUILT_IN).exit_code
