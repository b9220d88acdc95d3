"""Claims about classifier-free guidance: the formula, and rows for both branches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant.guidance import branches, guided_prediction
from tfq_bench.testing.tiny import TinyModel, load_tiny
from tfq_bench.types import CalibrationNeeds, Guidance


class Conditional(TinyModel):
    """The tiny model, its prediction shifted by a condition; 0 means none."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def predict(self, network, x, timestep, condition):
        """The plain prediction plus the condition."""
        plain = super().predict(network, x, timestep, condition)
        return plain + condition["shift"][:, :, None, None] * condition["size"][:, :, None, None]

    def conditions(self, images, *, device):
        """The image's number plus one, and a size that guidance leaves alone."""
        numbers = torch.tensor([[float(image) + 1] for image in images], device=device)
        return {"shift": numbers, "size": torch.full_like(numbers, 2.0)}

    def guidance(self, *, device):
        """No shift is no condition."""
        return Guidance(scale=self.scale, condition={"shift": torch.zeros(1, 1, device=device)})


@pytest.fixture
def guided():
    """The conditional model at guidance 3, loaded."""
    return replace(load_tiny(), model=Conditional(3.0))


def test_guidance_extrapolates_from_the_unconditional_prediction(guided):
    """The formula u + s (c - u), with one condition per row."""
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.full((2,), 500)
    condition = guided.model.conditions([0, 4], device="cpu")
    plain = TinyModel().predict(guided.network, x, t, {})
    expected = plain + 3.0 * 2.0 * torch.tensor([1.0, 5.0])[:, None, None, None]
    found = guided_prediction(guided.model, guided.network, x, t, condition)
    torch.testing.assert_close(expected, found)


def test_without_guidance_the_prediction_is_the_models(guided):
    """One branch, one row per sample."""
    plain = load_tiny()
    x, t = torch.zeros(2, 3, 8, 8), torch.full((2,), 500)
    expected = plain.model.predict(plain.network, x, t, {})
    assert torch.equal(expected, guided_prediction(plain.model, plain.network, x, t, {}))
    assert len(branches(plain.model, {}, device="cpu")) == 1


def test_arguments_that_guidance_does_not_name_are_the_same_in_both_branches(guided):
    """An image size is no condition to be left out."""
    condition = guided.model.conditions([3], device="cpu")
    without, given = branches(guided.model, condition, device="cpu")
    assert (0.0, 2.0) == (float(without["shift"]), float(without["size"]))
    assert (4.0, 2.0) == (float(given["shift"]), float(given["size"]))


def test_calibration_holds_both_branches_of_every_state(guided):
    """Two rows for each (step, image), the unconditional one first, of one state."""
    needs = CalibrationNeeds(samples=((0, 0), (0, 1), (2, 1)))
    data = capture(guided, needs, seed=0, batch=2, progress=lambda *_: None)
    assert [0, 0, 0, 0, 2, 2] == data.step.tolist()
    assert [0, 0, 1, 1, 1, 1] == data.image.tolist()
    assert [0.0, 1.0, 0.0, 2.0, 0.0, 2.0] == data.condition["shift"].flatten().tolist()
    assert torch.equal(data.x[0::2], data.x[1::2])
