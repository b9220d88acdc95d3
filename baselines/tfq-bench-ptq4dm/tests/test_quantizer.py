"""The quantizer on the tiny model: contracts, states at the stated timestep, policies."""

from __future__ import annotations

import pytest
import torch

from tfq_bench.api import QuantizationError, Scheme
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant import int8_refusal
from tfq_bench.seeds import generator
from tfq_bench.testing.contracts import QuantizerContract
from tfq_bench.testing.tiny import load_tiny
from tfq_bench_ptq4dm.quantizer import Ptq4dm

W4A8 = Scheme(wbits=4, abits=8)


def ignore(fraction, text):
    """Progress that nobody looks at."""


class TestContract(QuantizerContract):
    schemes = (
        Scheme(wbits=8, abits=8),
        Scheme(wbits=4, abits=8, policy="paper"),
        Scheme(wbits=4, abits=8, policy="uniform-temporal16"),
        Scheme(wbits=4, abits=8, policy="uniform-io16"),
        Scheme(wbits=4, abits=32),
    )

    def make(self, scheme):
        return Ptq4dm(scheme=scheme, preset="quick", samples=12, values=256)


class TestReleasedContract(QuantizerContract):
    schemes = (W4A8,)

    def make(self, scheme):
        return Ptq4dm(scheme=scheme, preset="quick", sampling="released", samples=24, values=256)

    def load(self):
        return load_tiny(sampler="ddim-stochastic")


class TestReconstructionContract(QuantizerContract):
    schemes = (W4A8, Scheme(wbits=4, abits=32))

    def make(self, scheme):
        return Ptq4dm(scheme=scheme, preset="quick", samples=12, values=256, iterations=3)


class TestFloatPrefixContract(QuantizerContract):
    schemes = (W4A8,)

    def make(self, scheme):
        return Ptq4dm(scheme=scheme, preset="quick", samples=12, values=256, prefix="float")


def _capture(loaded, quantizer, *, images=32):
    needs = quantizer.calibration_needs(loaded, images=images)
    return capture(loaded, needs, seed=1, batch=images, progress=ignore)


def _inputs_seen(loaded, quantizer):
    """(x, timestep) of every calibration sample that reaches the network in `quantize`."""
    data = _capture(loaded, quantizer)
    seen = []
    model = loaded.model
    predict = type(model).predict

    def spy(network, x, timestep, condition):
        seen.extend(zip(x.clone(), timestep.tolist(), strict=True))
        return predict(model, network, x, timestep, condition)

    model.predict = spy
    quantizer.quantize(loaded, data, generator=generator(0, "test"), progress=ignore)
    return data, seen


@pytest.mark.parametrize("sampling", ["normal", "uniform"])
def test_network_sees_states_at_their_own_timestep(sampling):
    """Every sample used is a captured state with the timestep at which the sampler had it."""
    loaded = load_tiny(steps=8)
    quantizer = Ptq4dm(scheme=W4A8, sampling=sampling, samples=64, values=256)
    data, seen = _inputs_seen(loaded, quantizer)
    captured = {x.numpy().tobytes(): t for x, t in zip(data.x, data.timestep.tolist(), strict=True)}
    assert 64 == len(seen)
    assert all(captured[x.numpy().tobytes()] == t for x, t in seen)


def test_network_sees_the_drawn_histogram():
    """How often a timestep is used is what NDTC says, repeated samples included."""
    loaded = load_tiny(steps=4)
    quantizer = Ptq4dm(scheme=W4A8, samples=200, values=256)
    _, seen = _inputs_seen(loaded, quantizer)
    times = [t for _, t in seen]
    # N(0.4, 0.4) below 1/4, 1/2, 3/4: 0.354, 0.599, 0.809; the cleanest step comes last.
    expected = [38, 42, 49, 71]
    found = [times.count(t) for t in loaded.sampler.timesteps]
    assert expected == pytest.approx(found, abs=1)


def test_mirrored_labels_the_finished_image_as_the_noisiest_step():
    """The code's pairing: what comes out of the last step goes with the largest timestep."""
    loaded = load_tiny(steps=4)
    quantizer = Ptq4dm(scheme=W4A8, sampling="mirrored", samples=64, values=256)
    data, seen = _inputs_seen(loaded, quantizer)
    last = data.step == 3
    t = data.timestep[last]
    prediction = type(loaded.model).predict(loaded.model, loaded.network, data.x[last], t, {})
    finished = loaded.sampler.step(data.x[last], prediction, 3, None)
    noisiest = [x for x, t in seen if t == loaded.sampler.timesteps[0]]
    assert noisiest
    for x in noisiest:
        assert float((finished - x).abs().amax(dim=(1, 2, 3)).min()) < 1e-5


def test_released_tells_the_bare_number_of_the_step():
    """Steps 0 to S - 1 from the clean end instead of the sampler's timesteps, as often as drawn."""
    loaded = load_tiny(steps=4)
    quantizers = [
        Ptq4dm(scheme=W4A8, sampling=sampling, samples=64, values=256)
        for sampling in ("mirrored", "released")
    ]
    # Before the 64 samples it sees the last step, which makes finished images.
    mirrored, released = (_inputs_seen(loaded, quantizer)[1][-64:] for quantizer in quantizers)
    number = {t: 3 - step for step, t in enumerate(loaded.sampler.timesteps)}
    assert [number[t] for _, t in mirrored] == [t for _, t in released]
    assert all(torch.equal(x, y) for (x, _), (y, _) in zip(mirrored, released, strict=True))
    assert {0, 1, 2, 3} == {t for _, t in released}


def test_paper_policy_keeps_eight_bits_at_both_ends_only():
    """Time MLP and output layer have 8 bits at W4, the input convolution has 4, nothing is FP."""
    loaded = load_tiny()
    quantizer = Ptq4dm(scheme=Scheme(wbits=4, abits=8, policy="paper"), samples=8, values=256)
    state = quantizer.quantize(
        loaded, _capture(loaded, quantizer), generator=generator(0, "test"), progress=ignore
    )
    eight = {name for name, layer in state.layers.items() if layer.wbits == 8}
    assert {"time_mlp.0", "time_mlp.2", "conv_out"} == eight
    assert not state.exempt


@pytest.mark.parametrize("wbits", range(2, 9))
def test_int8_kernels_can_execute_every_width(wbits):
    """Codes less their zero points fit int8; with fewer than 8 bits both zero points occur."""
    loaded = load_tiny()
    quantizer = Ptq4dm(scheme=Scheme(wbits=wbits, abits=8), samples=8, values=256)
    state = quantizer.quantize(
        loaded, _capture(loaded, quantizer), generator=generator(0, "test"), progress=ignore
    )
    assert {None} == {int8_refusal(layer) for layer in state.layers.values()}
    zero_points = {
        middle
        for layer in state.layers.values()
        if layer.wbits == wbits
        for middle in layer.parts[0].zero_point.tolist()
    }
    half = 2 ** (wbits - 1)
    assert zero_points == ({half} if wbits == 8 else {half - 1, half})


def test_foreign_calibration_data_is_refused():
    """Data captured for other options names the state that is missing."""
    loaded = load_tiny()
    data = _capture(loaded, Ptq4dm(scheme=W4A8, mu=0.0, sigma=0.01, samples=32))
    with pytest.raises(QuantizationError, match="found no state of step"):
        Ptq4dm(scheme=W4A8, samples=32).quantize(
            loaded, data, generator=generator(0, "test"), progress=ignore
        )


def test_global_generator_is_not_touched_by_the_draw():
    """Timesteps are quantiles: two calls ask for the same states."""
    loaded = load_tiny()
    before = torch.random.get_rng_state()
    needs = [Ptq4dm(scheme=W4A8).calibration_needs(loaded, images=16) for _ in range(2)]
    assert needs[0] == needs[1]
    assert torch.equal(before, torch.random.get_rng_state())


def test_jitter_makes_replicates_of_rounding():
    """Scales within its width, other codes for another seed, the same for the same."""
    loaded, scheme = load_tiny(), Scheme(wbits=4, abits=32)

    def parts(jitter, seed):
        quantizer = Ptq4dm(scheme=scheme, preset="quick", jitter=jitter)
        data = _capture(loaded, quantizer)
        state = quantizer.quantize(loaded, data, generator=generator(seed, "test"), progress=ignore)
        return [layer.parts[0] for layer in state.layers.values()]

    plain, one, again, other = (parts(*at) for at in ((0.0, 0), (0.03, 0), (0.03, 0), (0.03, 1)))
    for before, after in zip(plain, one, strict=True):
        assert ((after.scale / before.scale - 1).abs() <= 0.03 + 1e-6).all()
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(one, again, strict=True))
    for found in (plain, other):
        assert not all(torch.equal(a.weight, b.weight) for a, b in zip(one, found, strict=True))


def test_jitter_beside_learned_rounding_is_refused():
    """It would be overwritten."""
    with pytest.raises(QuantizationError, match=r"found 0\.03 and 5"):
        Ptq4dm(scheme=W4A8, jitter=0.03, iterations=5)
