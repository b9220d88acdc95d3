"""Calls of a lowered network are held against the simulation: what must pass, and what must not."""

from dataclasses import replace

import pytest
import torch

from tfq_bench.errors import LoweringError
from tfq_bench.pipeline.agreement import Agreement, largest_difference
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.quant.state.qparams import ActivationQParams
from tfq_bench.quant.state.temporal_cache import TemporalCache
from tfq_bench.testing.inputs import tiny_state
from tfq_bench.testing.tiny import TinyModel, load_tiny
from tfq_bench.types import Guidance, Scheme
from tfq_bench.types.networks import StepCursor

STEPS = 5


class Guided(TinyModel):
    """The tiny model, shifted by the image's number; guidance of strength 3."""

    def predict(self, network, x, timestep, condition):
        return super().predict(network, x + condition["shift"][:, :, None, None], timestep, {})

    def conditions(self, images, *, device):
        return {"shift": torch.tensor([[image + 1.0] for image in images], device=device)}

    def guidance(self, *, device):
        return Guidance(scale=3.0, condition={"shift": torch.zeros(1, 1, device=device)})


class OneStepOff(StepCursor):
    """Tables are read a step too early, the first one twice."""

    def set(self, step):
        super().set(max(step - 1, 0))


def stepwise(state):
    """The state with a table of each step, one hundredth wider at each than at the one before."""
    grown = torch.arange(STEPS) / 100 + 1

    def wider(table):
        return ActivationQParams(
            scale=table.scale[0] * grown,
            zero_point=table.zero_point[0].repeat(STEPS),
            bits=table.bits,
        )

    layers = {
        name: replace(
            layer,
            parts=tuple(replace(part, activation=wider(part.activation)) for part in layer.parts),
        )
        for name, layer in state.layers.items()
    }
    return replace(state, layers=layers)


def cached(state):
    """The state with a temporal cache of three of five steps."""
    cache = TemporalCache(
        name="first.time",
        bits=16,
        values=torch.linspace(-1, 1, 16).half().expand(STEPS, -1) * torch.arange(STEPS)[:, None],
        scale=None,
        zero_point=None,
        selected=torch.tensor([True, False, True, False, True]),
    )
    return replace(state, cache={"first.time": cache})


@pytest.fixture(scope="module")
def plain():
    """A loaded model of five steps and a state of it."""
    loaded = load_tiny(steps=STEPS)
    return loaded, tiny_state(loaded, Scheme(wbits=4, abits=8))


def checked(loaded, state, lowered):
    """The worst row of all steps, three at a time, and of batches."""
    calls = Agreement(loaded, state, lowered, simulate(loaded, state))
    calls.every_step(3)
    for size in (1, 6, 7):
        calls.batch(size)
    return calls.worst


@pytest.mark.parametrize("change", [lambda state: state, stepwise, cached])
@pytest.mark.parametrize("model", [TinyModel, Guided])
def test_a_right_network_passes(plain, change, model):
    """Tables of each step, a cache at some steps, split inputs, guidance: rounding is all there is.

    Steps are simulated in one call and lowered one by one, so this compares the two as well.
    """
    loaded, state = plain
    loaded, state = replace(loaded, model=model()), change(state)
    lowered = simulate(loaded, state)
    index = lowered.step.index
    worst = checked(loaded, state, lowered)
    assert worst["relative"] <= worst["limit"]
    assert worst["relative"] < 1e-3
    assert index is lowered.step.index


def test_tables_of_a_neighbouring_step_are_seen(plain):
    """One hundredth off, far within the drift that predictions may have: layers are looked into."""
    loaded, state = plain
    state = stepwise(state)
    lowered = simulate(loaded, state)
    off = OneStepOff("cpu")
    for module in lowered.network.modules():
        if hasattr(module, "_step"):
            module._step = off

    class Both(StepCursor):
        def set(self, step):
            super().set(step)
            off.set(step)

    lowered = replace(lowered, step=Both("cpu"))
    with pytest.raises(LoweringError, match=r"'[a-z_.0-9]+' does not compute .* at step 1, "):
        checked(loaded, state, lowered)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda y: y * torch.nan, "is nan of its size away"),
        (lambda y: y[:, :2], r"expected shape \(2, 3, 8, 8\), found \(2, 2, 8, 8\)"),
        (lambda y: y[:1], r"expected shape \(2, 3, 8, 8\), found \(1, 3, 8, 8\)"),
        (lambda y: torch.cat([y[:6], y[:1]]) if len(y) == 7 else y, "for image 6 of a batch of 7"),
        (lambda y: y.roll(4, 0) if len(y) == 7 else y, "for image 0 of a batch of 7"),
    ],
)
def test_what_a_network_gives_is_held_against_its_simulation(plain, fault, message):
    """Shapes, values that are not finite, and each row of a batch by itself."""
    loaded, state = plain
    lowered = simulate(loaded, state)
    lowered.network.register_forward_hook(lambda _, x, y: fault(y))
    with pytest.raises(LoweringError, match=message):
        checked(loaded, state, lowered)


def test_rounding_in_another_order_is_allowed(plain):
    """A drift of less than two distances from full precision passes, and is told."""
    loaded, state = plain
    lowered = simulate(loaded, state)
    full = loaded.network
    lowered.network.register_forward_hook(lambda _, x, y: y + 1.4 * (full(*x) - y))
    worst = checked(loaded, state, lowered)
    assert 0.6 < worst["relative"] / worst["limit"] < 0.75


@pytest.mark.parametrize(
    ("dtype", "limit"),
    [(torch.float32, 2.0**-13), (torch.float16, 0.0625), (torch.bfloat16, 0.0625)],
)
def test_rounding_excuses_no_other_network(plain, dtype, limit):
    """Where nothing is far from full precision: never the prediction's own size."""
    loaded, _ = plain
    model = TinyModel()
    model.dtype = dtype
    assert limit == largest_difference(replace(loaded, model=model), 0.0)
    assert 2.0 == largest_difference(replace(loaded, model=model), 1.0)


def test_batches_of_any_size_share_a_simulation(plain):
    """Images and step are the same for two sizes, so they are simulated once."""
    loaded, state = plain
    lowered, simulated = simulate(loaded, state), simulate(loaded, state)
    rows = []
    simulated.network.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    calls = Agreement(loaded, state, lowered, simulated)
    calls.batch(8)
    calls.batch(16)
    assert rows == [5]
