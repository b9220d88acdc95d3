"""Temporal features depend on t only, and their disturbance is measured per step and block."""

import pytest
import torch

from tfq_bench.errors import MetricError
from tfq_bench.quant.calibrate.temporal import temporal_errors, temporal_features
from tfq_bench.quant.lower.simulate import simulate


def test_features_do_not_depend_on_x(loaded, generator):
    """Two different x give the same table, one row per step, different from row to row."""
    x = torch.randn(1, 3, 8, 8, generator=generator)
    one, two = (
        temporal_features(loaded, loaded.network),
        temporal_features(loaded, loaded.network, x=x),
    )
    assert list(one) == ["first.time", "second.time"]
    for name, rows in one.items():
        assert rows.shape == (6, 16)
        assert torch.equal(rows, two[name])
        assert not torch.equal(rows[0], rows[1])


def test_quantization_disturbs_them_more_at_fewer_bits(loaded, round_to_nearest):
    """Nothing at full precision, little at 8 bits, more at 4."""
    reference = temporal_features(loaded, loaded.network)
    whole = temporal_errors(reference, temporal_features(loaded, simulate(loaded, None)))
    assert float(whole.relative.max()) == 0.0
    assert whole.mismatch == 0.0
    means = [
        float(
            temporal_errors(
                reference, temporal_features(loaded, simulate(loaded, round_to_nearest(*bits)))
            ).relative.mean()
        )
        for bits in ((8, 8), (4, 4))
    ]
    assert 0 < means[0] < 0.1 < means[1]


def test_layer_called_again_in_a_step_counts_once(loaded):
    """A network may read its time embedding in two places."""
    expected = temporal_features(loaded, loaded.network, names=["time_mlp.2"])
    again = loaded.network.conv_out.register_forward_hook(
        lambda *_: loaded.network.time_mlp(seen[-1])
    )
    seen = []
    keep = loaded.network.time_mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    found = temporal_features(loaded, loaded.network, names=["time_mlp.2"])
    again.remove()
    keep.remove()
    assert 2 * 6 == len(seen)
    assert torch.equal(expected["time_mlp.2"], found["time_mlp.2"])


def test_cursor_follows_the_steps(loaded, round_to_nearest):
    """Per-step tables are read at the step whose feature is taken."""
    lowered = simulate(loaded, round_to_nearest(8, 8))
    visited = []
    lowered.network.first.time.register_forward_hook(
        lambda *_: visited.append(int(lowered.step.index))
    )
    temporal_features(loaded, lowered)
    assert visited == [0, 1, 2, 3, 4, 5]


def test_mismatch_names_the_step_that_is_closer():
    """Features of two steps swapped: each is nearest to the other's, and orthogonal to its own."""
    reference = {"block": torch.eye(3)}
    errors = temporal_errors(reference, {"block": torch.eye(3)[[1, 0, 2]]})
    assert errors.nearest.tolist() == [[1], [0], [2]]
    assert errors.cosine.tolist() == [[0.0], [0.0], [1.0]]
    assert pytest.approx(errors.mismatch) == 2 / 3
    torch.testing.assert_close(
        torch.tensor([[2**0.5], [2**0.5], [0.0]], dtype=torch.float64), errors.relative
    )


def test_equal_features_of_two_steps_are_no_mismatch():
    """A sampler may pass one timestep twice."""
    rows = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    assert temporal_errors({"block": rows}, {"block": rows.clone()}).mismatch == 0.0


def test_missing_projections_are_an_error(loaded):
    """Tables of different blocks cannot be compared, and a lost projection is not skipped."""
    reference = temporal_features(loaded, loaded.network)
    with pytest.raises(MetricError, match="must have shapes"):
        temporal_errors(reference, {"first.time": reference["first.time"]})
    with pytest.raises(MetricError, match=r"no time projection 'first.time'"):
        temporal_features(loaded, torch.nn.Identity())
