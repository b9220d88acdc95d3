"""A correction takes out slope and bias; a state has it or is as it always was."""

import json
from dataclasses import replace

import pytest
import torch

from tfq_bench.errors import QuantizationError
from tfq_bench.quant.bit_report import bit_report
from tfq_bench.quant.state.sampler_correction import SamplerCorrection
from tfq_bench.quant.state.storage import load_state, save_state

STEPS = 6


def correction(steps=STEPS, **fields):
    """One with other values at each step and channel."""
    values = {
        "slope": torch.linspace(-0.5, 0.5, steps),
        "bias": torch.arange(3.0 * steps).reshape(steps, 3) / 10,
        "variance": torch.linspace(0.0, 0.2, steps),
    }
    return SamplerCorrection(**{**values, **fields})


def test_what_the_error_model_adds_is_taken_out():
    """(1 + k) e + b becomes e, with the values of the step that is asked for."""
    one = correction()
    exact = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for step in (0, 4):
        found = (1 + one.slope[step]) * exact + one.bias[step][:, None, None]
        torch.testing.assert_close(exact, one.corrected(found, step))
    assert pytest.approx(0.2 / 1.5**2) == one.remaining_variance(STEPS - 1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"slope": torch.zeros(STEPS, dtype=torch.float64)}, r"slope must be float32 \[T\]"),
        ({"bias": torch.zeros(STEPS)}, r"bias must be float32 \[T, C\]"),
        ({"variance": torch.zeros(STEPS - 1)}, "variance must be float32"),
        ({"bias": torch.full((STEPS, 3), torch.nan)}, "bias must be finite"),
        ({"slope": torch.full((STEPS,), -1.0)}, "above -1"),
        ({"variance": torch.full((STEPS,), -1e-9)}, "at least 0"),
    ],
)
def test_values_that_correct_nothing_are_refused(fields, words):
    """Each with what was expected."""
    with pytest.raises(QuantizationError, match=words):
        correction(**fields)


def test_a_state_has_a_row_for_each_step(round_to_nearest):
    """A correction for another number of steps belongs to another state."""
    with pytest.raises(QuantizationError, match="6 rows"):
        replace(round_to_nearest(), correction=correction(5))


def test_it_comes_back_as_it_was(round_to_nearest, tmp_path):
    """Every tensor, bit for bit; its bytes are counted."""
    plain = round_to_nearest()
    state = replace(plain, correction=correction())
    save_state(state, tmp_path)
    loaded = load_state(tmp_path).correction
    for name in ("slope", "bias", "variance"):
        assert torch.equal(getattr(state.correction, name), getattr(loaded, name)), name
    assert 4 * (6 + 18 + 6) == state.packed_bytes - plain.packed_bytes


def test_its_bytes_have_a_place_in_the_report(loaded, round_to_nearest):
    """Roles sum to the total, packed bytes are the state's."""
    state = replace(round_to_nearest(), correction=correction())
    report = bit_report(loaded.network, loaded.topology, state)
    assert 120 == report.bytes_by_role["sampler-correction"]
    assert state.packed_bytes == report.packed_bytes
    assert report.total_bytes == sum(report.bytes_by_role.values())


def test_states_without_one_say_nothing_of_it(round_to_nearest, tmp_path):
    """No key and no tensor."""
    save_state(round_to_nearest(), tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())["content"]
    assert "correction" not in content
    assert load_state(tmp_path).correction is None
