"""One pass over the sampler captures what a quantizer asks for, and nothing depends on the rest."""

import dataclasses

import pytest
import torch

from tfq_bench.errors import CalibrationError
from tfq_bench.pipeline.calibrate import capture, load_calibration, save_calibration
from tfq_bench.seeds import noise
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import CalibrationNeeds

STEPS = 5
SEED = 7


def take(samples, *, loaded=None, batch=4):
    """What `capture` gives for pairs (step, image)."""
    return capture(
        loaded or load_tiny(steps=STEPS),
        CalibrationNeeds(samples=tuple(samples)),
        seed=SEED,
        batch=batch,
        progress=lambda *_: None,
    )


def counting(loaded):
    """`loaded` with a network that counts its calls in the returned list."""
    calls = []
    loaded.network.register_forward_hook(lambda *_: calls.append(1))
    return loaded, calls


def plain_sampler(image, sampler="ddim"):
    """The x of every step for one image, by a sampler loop written without the harness."""
    loaded = load_tiny(steps=STEPS, sampler=sampler)
    x = noise(SEED, "calibration", [image], (3, 8, 8), device="cpu")
    states = []
    for step, t in enumerate(loaded.sampler.timesteps):
        states.append(x[0])
        with torch.no_grad():
            prediction = loaded.network(x, torch.tensor([t]))
        z = noise(SEED, f"calibration-step-{step}", [image], (3, 8, 8), device="cpu")
        x = loaded.sampler.step(x, prediction, step, z if loaded.sampler.stochastic else None)
    return states


@pytest.mark.parametrize("sampler", ["ddim", "ddim-stochastic"])
def test_states_are_those_of_a_plain_sampler(sampler):
    """Each captured x_t is what sampling that image alone would have passed to the network."""
    pairs = [(step, image) for step in range(STEPS) for image in (0, 3)]
    data = take(pairs, loaded=load_tiny(steps=STEPS, sampler=sampler))
    timesteps = load_tiny(steps=STEPS).sampler.timesteps
    assert pairs == list(zip(data.step.tolist(), data.image.tolist(), strict=True))
    assert [timesteps[step] for step, _ in pairs] == data.timestep.tolist()
    expected = {image: plain_sampler(image, sampler) for image in (0, 3)}
    for row, (step, image) in enumerate(pairs):
        torch.testing.assert_close(expected[image][step], data.x[row], rtol=1e-4, atol=1e-5)


def test_all_timesteps_take_one_pass():
    """T states of T timesteps cost T-1 calls per batch: the last state needs no further call."""
    loaded, calls = counting(load_tiny(steps=STEPS))
    take([(s, i) for s in range(STEPS) for i in range(6)], loaded=loaded, batch=3)
    assert (STEPS - 1) * 2 == len(calls)


def test_the_pass_ends_with_the_last_step_that_is_wanted():
    """Noise costs nothing; step 2 costs two calls."""
    loaded, calls = counting(load_tiny(steps=STEPS))
    take([(0, 1)], loaded=loaded)
    assert 0 == len(calls)
    take([(2, 1)], loaded=loaded)
    assert 2 == len(calls)


def test_an_image_does_not_depend_on_the_others():
    """Noise goes by image index, so that asking for more keeps what was there."""
    alone = take([(0, 5)])
    among = take([(0, i) for i in range(9)], batch=2)
    assert torch.equal(alone.x[0], among.x[5])


def test_nothing_wanted():
    """A method without data gets an empty set, shaped like the model's states."""
    loaded, calls = counting(load_tiny(steps=STEPS))
    assert (0, 3, 8, 8) == tuple(take([], loaded=loaded).x.shape)
    assert 0 == len(calls)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(0, 0), (0, 0)], "twice"),
        ([(STEPS, 0)], f"outside 0..{STEPS - 1}"),
        ([(-1, 0)], "outside 0"),
        ([(0, -1)], "negative image index"),
    ],
)
def test_needs_that_cannot_be_met(pairs, message):
    """Duplicates, unknown steps and negative images are refused before any call."""
    with pytest.raises(CalibrationError, match=message):
        take(pairs)


def test_values_that_are_not_finite():
    """A broken model is told of, not calibrated on."""
    loaded = load_tiny(steps=STEPS)
    with torch.no_grad():
        loaded.network.conv_out.bias.fill_(float("nan"))
    with pytest.raises(CalibrationError, match="not finite"):
        take([(2, 0)], loaded=loaded)


def test_stored_data_come_back(tmp_path):
    """Every tensor survives the file, conditions under their names."""
    data = dataclasses.replace(take([(0, 0), (2, 1)]), condition={"label": torch.tensor([3, 4])})
    save_calibration(data, tmp_path)
    found = load_calibration(tmp_path, "cpu")
    for name in ("x", "timestep", "step", "image"):
        assert torch.equal(getattr(data, name), getattr(found, name)), name
    assert [3, 4] == found.condition["label"].tolist()
