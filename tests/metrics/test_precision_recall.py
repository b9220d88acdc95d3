"""Improved precision and recall."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tfq_bench.errors import MetricError
from tfq_bench.metrics import precision_recall
from tfq_bench.metrics.precision_recall import covered, neighbour_radii


def test_balls_reach_to_the_kth_neighbour():
    """On a line the squared radii and what they cover can be written down."""
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]], dtype=torch.float64)
    radii = neighbour_radii(line, 2, torch.ones((1, 4), dtype=torch.bool))
    assert radii.tolist() == [[9.0, 4.0, 9.0, 36.0]]
    points = torch.tensor([[-2.9], [-3.1], [12.9], [13.1]], dtype=torch.float64)
    assert covered(points, line, radii).tolist() == [[True, False, True, False]]


def test_left_out_points_neither_cover_nor_count_as_neighbours(monkeypatch):
    """A selection gives what the remaining points alone give, whatever the block size."""
    monkeypatch.setattr(precision_recall, "BLOCK", 4)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn((n, 3), generator=generator, dtype=torch.float64) for n in (11, 9))
    kept = torch.arange(11) % 3 != 1
    found = covered(y, x, neighbour_radii(x, 3, kept[None]))
    alone = x[kept]
    within = torch.cdist(alone, alone).sort(dim=1).values[:, 3]
    expected = (torch.cdist(y, alone) <= within).any(dim=1)
    assert expected.tolist() == found[0].tolist()


def test_the_reference_set_itself_is_precise_and_complete(
    with_reference, reference_images, host_metric
):
    """Images of the reference set lie in its manifold, and it in theirs."""
    inputs = replace(with_reference, images=reference_images)
    precision, recall = host_metric("precision-recall", k=3).evaluate(inputs)
    assert (precision.value, recall.value) == (1.0, 1.0)
    assert recall.replicates == ()


def test_too_few_images_are_refused(with_reference, host_metric):
    """K neighbours among k images are a sentence, not an index error."""
    with pytest.raises(MetricError, match="7 nearest neighbours need more than 7 images"):
        host_metric("precision-recall", k=7).evaluate(with_reference)
