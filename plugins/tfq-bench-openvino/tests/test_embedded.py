"""The embedded models: U-Net, class-conditional U-Net with cross-attention, DiT."""

from __future__ import annotations

import pytest
import torch

from tfq_bench.api import LoadedModel, LoweringError, Scheme
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant import RoundToNearest
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.quant.lower.watched import watched_layers
from tfq_bench_cifar10 import model as embedded
from tfq_bench_openvino.backend import OpenVinoBackend
from tfq_bench_openvino.trials import executed_precision

MODELS = {
    "unet": embedded.unconditional,
    "conditional": lambda: embedded.conditional(guidance=1.0),
    "dit": lambda: embedded.dit(guidance=1.0),
}


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "f32") for name in MODELS), ("unet", "bf16")]
)
def test_embedded_model_agrees_with_its_simulation(name, precision):
    """Every layer by its integers; the prediction within half of what quantizing costs.

    With bfloat16 beside the int8 products, too; a processor without it is refused.
    """
    model = MODELS[name]()
    network = model.load(device="cpu", dtype=torch.float32)
    loaded = LoadedModel(
        model=model,
        network=network,
        topology=model.topology(network),
        sampler=model.sampler("ddim", 2),
        device="cpu",
    )
    method = RoundToNearest(scheme=Scheme(wbits=4, abits=8), split=True)
    needs = method.calibration_needs(loaded, images=2)
    data = capture(loaded, needs, seed=0, batch=2, progress=lambda *_: None)
    generator = torch.Generator().manual_seed(0)
    state = method.quantize(loaded, data, generator=generator, progress=lambda *_: None)
    backend = OpenVinoBackend(precision=precision)
    if executed_precision(precision) != precision:
        with pytest.raises(LoweringError, match="OpenVINO computes in 'f32'"):
            backend.lower(loaded, state)
        return
    lowered, simulated = backend.lower(loaded, state), simulate(loaded, state)
    assert [None] * len(state.layers) == [use.fallback for use in lowered.kernels]
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    condition = model.conditions(range(2), device="cpu")
    for one in (lowered, simulated):
        one.step.set(1)
    t = torch.full((2,), loaded.sampler.timesteps[1])
    full = model.predict(network, x, t, condition)
    expected = model.predict(simulated.network, x, t, condition)
    with watched_layers(loaded, state, lowered) as watch:
        found = model.predict(lowered.network, x, t, condition)
    assert len(watch.checks) == len(state.layers)
    assert (found - expected).norm() <= 0.5 * (full - expected).norm()
