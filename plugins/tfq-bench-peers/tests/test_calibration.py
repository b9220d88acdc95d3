"""Tools see few states, of every step and of many images."""

import torch

from tfq_bench.api import CalibrationData
from tfq_bench_peers.calibration import calls, spread


def test_few_samples_are_spread():
    """Every step as often as every other, and no image more often than needed."""
    samples = spread(steps=4, images=8, samples=16).samples
    assert 16 == len(set(samples))
    assert {4} == {sum(step == one for step, _ in samples) for one in range(4)}
    assert 7 <= len({image for _, image in samples})


def test_more_than_there_are_is_all():
    """Every pair once."""
    expected = {(step, image) for step in range(3) for image in range(2)}
    assert expected == set(spread(steps=3, images=2, samples=100).samples)


def test_calls_have_every_row_once():
    """The last call has what is left; conditions go with their rows."""
    data = CalibrationData(
        x=torch.arange(5.0).reshape(5, 1, 1, 1),
        timestep=torch.arange(5),
        step=torch.zeros(5, dtype=torch.int64),
        image=torch.arange(5),
        condition={"label": torch.arange(5) * 10},
    )
    found = list(calls(data, rows=2))
    assert [2, 2, 1] == [len(x) for x, _, _ in found]
    assert torch.equal(data.x, torch.cat([x for x, _, _ in found]))
    assert torch.equal(data.condition["label"], torch.cat([c["label"] for _, _, c in found]))
