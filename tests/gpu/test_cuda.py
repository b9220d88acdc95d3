"""What only a GPU can show: exact sums on tensor cores, captured learning, equal cells."""

from __future__ import annotations

import pytest
import torch

from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant import (
    UNIFORM,
    ActivationQParams,
    LayerPart,
    QuantizedLayer,
    resolve,
    simulate,
)
from tfq_bench.quant.learn.block import Reconstruction
from tfq_bench.quant.learn.fake_quant_network import FakeQuantNetwork
from tfq_bench.quant.learn.reconstruct import reconstruct
from tfq_bench.quant.lower.simulate import SimulatedLayer
from tfq_bench.seeds import generator
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import CalibrationNeeds, Scheme
from tfq_bench.types.networks import StepCursor
from tfq_bench_qdiffusion.quantizer import QDiffusion
from tfq_bench_tfmq.quantizer import Tfmq

pytestmark = pytest.mark.gpu

W4A8 = Scheme(wbits=4, abits=8)


def ignore(fraction, text):
    """Progress that nobody looks at."""


@pytest.mark.parametrize("kind", ["conv2d", "linear"])
@pytest.mark.parametrize("wbits", [4, 6, 8])
def test_sums_on_tensor_cores_are_those_of_float64(kind, wbits):
    """With all scales 1 the output is the integer sum, to the last unit, below 2^24."""
    source = torch.Generator().manual_seed(wbits)
    shape, x_shape = ((128, 256, 3, 3), (8, 256, 16, 16))
    if kind == "linear":
        shape, x_shape = ((128, 2304), (64, 2304))
    weight = torch.randint(0, 2**wbits, shape, generator=source, dtype=torch.uint8)
    x = torch.randint(-100, 156, x_shape, generator=source).float()
    ones = torch.ones(128)
    layer = QuantizedLayer(
        name="layer",
        kind=kind,
        wbits=wbits,
        parts=(
            LayerPart(
                start=0,
                stop=shape[1],
                weight=weight,
                scale=ones,
                zero_point=torch.full((128,), 2 ** (wbits - 1), dtype=torch.int32),
                activation=ActivationQParams(
                    bits=8, scale=torch.ones(1), zero_point=torch.tensor([100], dtype=torch.int32)
                ),
            ),
        ),
    )
    if kind == "conv2d":
        original = torch.nn.Conv2d(256, 128, 3, padding=1, bias=False)
    else:
        original = torch.nn.Linear(2304, 128, bias=False)
    integers = weight.double() - 2 ** (wbits - 1)
    with torch.no_grad():
        original.weight.zero_()
        found = SimulatedLayer(layer, original.cuda(), StepCursor("cuda"))(x.cuda()).cpu()
    if kind == "conv2d":
        expected = torch.nn.functional.conv2d(x.double(), integers, padding=1)
    else:
        expected = x.double() @ integers.T
    assert float(expected.abs().max()) < 2**24
    assert torch.equal(expected, found.double())


def _reconstructed(device):
    loaded = load_tiny(device=device)
    needs = CalibrationNeeds(
        samples=tuple((step, image) for step in range(4) for image in range(8))
    )
    data = capture(loaded, needs, seed=1, batch=8, progress=ignore)
    fake_quant = FakeQuantNetwork(loaded, resolve(UNIFORM, loaded.topology, W4A8), split=True)
    return reconstruct(
        fake_quant,
        data,
        options=Reconstruction(iterations=300, batch=8, lr=1e-2),
        generator=generator(0, "test"),
        progress=ignore,
    )


def test_captured_steps_learn_what_eager_ones_do():
    """The first block ends where the CPU ends; each later one gains as much as there.

    Later blocks begin elsewhere on the two, because they read what the learned ones give.
    """
    pairs = list(zip(_reconstructed("cpu"), _reconstructed("cuda"), strict=True))
    cpu, cuda = pairs[0]
    assert cuda.before == pytest.approx(cpu.before, rel=0.02)
    assert cuda.after == pytest.approx(cpu.after, rel=0.1)
    for cpu, cuda in pairs:
        assert cuda.after <= cuda.before
        assert cuda.after / cuda.before == pytest.approx(cpu.after / cpu.before, abs=0.15)


@pytest.mark.parametrize("method", [QDiffusion, Tfmq])
def test_methods_run_on_a_gpu(method):
    """Calibrated and learned there, the state is one of the CPU's network too."""
    loaded = load_tiny(device="cuda")
    quantizer = method(scheme=W4A8, preset="quick", iterations=20)
    needs = quantizer.calibration_needs(loaded, images=4)
    data = capture(loaded, needs, seed=1, batch=4, progress=ignore)
    state = quantizer.quantize(loaded, data, generator=generator(0, "test"), progress=ignore)
    lowered = simulate(load_tiny(), state)
    assert lowered.network is not None
    assert set(state.layers) <= {layer.name for layer in loaded.topology.layers}
