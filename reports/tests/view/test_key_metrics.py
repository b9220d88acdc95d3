"""Which numbers a report leads with."""

from dataclasses import replace

import pytest

from tfq_bench_reports.view.key_metrics import key_metrics
from tfq_bench_reports.view.reader import read_run


@pytest.fixture
def cells(run, synthetic):
    """The synthetic cells with numbers beside those that lead."""

    def more(cell):
        if "psnr" not in cell.metrics:
            return cell
        reference = cell.metrics["psnr"].reference
        beside = {
            name: synthetic.sampled(name, 1.0, 0.1, 1, reference=reference)
            for name in ("output-shift", "psnr-centred")
        }
        return replace(cell, metrics={**beside, **cell.metrics})

    return tuple(map(more, read_run(run).cells))


def without(cells, *names):
    """The cells without some of their numbers."""
    return [
        replace(c, metrics={n: v for n, v in c.metrics.items() if n not in names}) for c in cells
    ]


def test_a_diagnostic_does_not_lead(cells):
    """PSNR comes first, then PSNR without the shift, then divergence; a shift alone last of all."""
    order = ("psnr", "psnr-centred", "trajectory-divergence", "output-shift")
    assert list(order) == [
        key_metrics(without(cells, *order[:place])).paired for place in range(len(order))
    ]
