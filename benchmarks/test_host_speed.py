"""What the host does between network calls: packing, ranges, the Fréchet distance, records.

Run with `tox -e bench` or `OMP_NUM_THREADS=2 pytest benchmarks --benchmark-only`; never part of the
test command.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tfq_bench.api import Interval, MetricDefinition, MetricValue, Record
from tfq_bench.metrics.frechet import frechet_distance
from tfq_bench.quant.calibrate.ranges import mse_range
from tfq_bench.quant.state.packing import pack, unpack
from tfq_bench.store.records import append

CODES = 1_000_000  # of the embedded network's 6.5 M weights
FEATURES = 1280  # of EfficientNet-Lite0


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_pack_and_unpack(benchmark, bits):
    """A million codes to their true width and back."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 2**bits, (CODES,), generator=generator, dtype=torch.uint8)
    assert torch.equal(codes, benchmark(lambda: unpack(pack(codes, bits), bits, (CODES,))))


def test_range_search(benchmark):
    """80 candidate ranges for each of 128 output channels of a 128-128 3x3 convolution."""
    weight = torch.randn(128, 128 * 9, generator=torch.Generator().manual_seed(0))
    low, high = benchmark(mse_range, weight, 4, symmetric=True)
    assert bool((low < high).all())


def test_frechet_distance(benchmark):
    """Two Gaussians over 1,280 features."""
    random = np.random.default_rng(0)
    first, second = (random.standard_normal((2 * FEATURES, FEATURES)) for _ in range(2))
    moments = [(f.mean(0), np.cov(f, rowvar=False)) for f in (first, second)]
    assert benchmark(frechet_distance, *moments[0], *moments[1]) > 0


def test_append_records(benchmark, tmp_path):
    """One durable write of a cell's 20 records with 200 bootstrap replicates each."""
    records = [_record(f"metric-{number}") for number in range(20)]
    benchmark(append, tmp_path / "records.jsonl", records)


def _record(name: str) -> Record:
    definition = MetricDefinition(name=name, unit="dB", direction="higher", summary="a number")
    return Record(
        run="run",
        cell="0123456789abcdef",
        label="cifar10 / rtn W4A8 / cpu",
        axes={"model": "cifar10", "quantizer": "rtn", "scheme": "W4A8", "backend": "cpu"},
        status="ok",
        execution="lowered",
        environment="0123",
        metric=MetricValue(
            definition=definition,
            value=23.4,
            n=1000,
            interval=Interval(low=23.0, high=23.8, level=0.95, method="bootstrap-se"),
            replicates=tuple(23.4 + number / 1000 for number in range(200)),
        ),
        definition=f"{name}@01234567",
        source="0123",
        source_values=20,
    )
