"""What a metric must keep to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tfq_bench.errors import MetricError
from tfq_bench.keys import definition_id
from tfq_bench.pipeline.values import checked_values
from tfq_bench.protocols import NamesValues
from tfq_bench.testing.inputs import TinyInputs

if TYPE_CHECKING:
    from tfq_bench.protocols import EvaluationInputs, Metric

__all__ = ["MetricContract"]


class MetricContract:
    """What a `Metric` must keep to."""

    def make(self) -> Metric:
        """The metric with the options to test; to be implemented."""
        raise NotImplementedError

    def inputs(self) -> EvaluationInputs:
        """The cell to evaluate."""
        return TinyInputs()

    def test_every_name_stands_once(self) -> None:
        """No two values share a name, and `names`, where there are some, have every one."""
        metric = self.make()
        names = [value.definition.name for value in metric.evaluate(self.inputs())]
        assert names, "the metric gives no value"
        assert len(names) == len(set(names)), "two numbers have one name"
        if isinstance(metric, NamesValues):
            assert set(names) <= set(metric.names), "it gives a number that 'names' lacks"

    def test_values_repeat(self) -> None:
        """A second object gives the same definitions, values and replicates.

        Values and replicates only where they are not volatile.
        """
        inputs = self.inputs()
        random = torch.random.get_rng_state()
        one, other = self.make().evaluate(inputs), self.make().evaluate(inputs)
        assert torch.equal(random, torch.random.get_rng_state()), "global generator was used"
        for first, second in zip(one, other, strict=True):
            name = first.definition.name
            assert definition_id(first.definition) == definition_id(second.definition), name
            if not first.definition.volatile:
                assert repr(first.value) == repr(second.value), name
                assert first.replicates == second.replicates, name

    def test_values_are_well_formed(self) -> None:
        """They get through what every run checks before it stores a value."""
        inputs, metric = self.inputs(), self.make()
        try:
            checked_values(metric.evaluate(inputs), reference=inputs.reference_cell)
        except MetricError as error:
            raise AssertionError(str(error)) from error

    def test_images_are_left_alone(self) -> None:
        """What other metrics read too is not written into."""
        inputs = self.inputs()
        before = inputs.images.copy()
        self.make().evaluate(inputs)
        assert (before == inputs.images).all(), "the metric wrote into the images"
