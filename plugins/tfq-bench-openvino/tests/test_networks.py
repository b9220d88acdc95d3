"""Networks of diffusers with text: cross-attention, GEGLU, layer norms, keyword arguments."""

from __future__ import annotations

from types import SimpleNamespace

import diffusers
import pytest
import torch
from torch import nn

from tfq_bench.api import LoadedModel
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.quant.lower.watched import watched_layers
from tfq_bench.quant.state.quantized_state import QuantizedState
from tfq_bench.testing.by_hand import TIMESTEPS, quantized_layer
from tfq_bench.types import Guidance, Layer, Scheme, Topology
from tfq_bench_openvino.backend import OpenVinoBackend

TOKENS, TEXT = 7, 24


class TextModel:
    """Stable Diffusion in small: a text, and guidance against an empty one."""

    digest, latent_shape, dtype = "text", (4, 8, 8), torch.float32

    def predict(self, network, x, timestep, condition):
        text = condition["text"]
        return network(x, timestep, encoder_hidden_states=text, return_dict=False)[0]

    def conditions(self, images, *, device):
        generator = torch.Generator().manual_seed(5)
        return {"text": torch.randn(8, TOKENS, TEXT, generator=generator)[list(images)]}

    def guidance(self, *, device):
        return Guidance(scale=2.0, condition={"text": torch.zeros(1, TOKENS, TEXT)})


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """A `UNet2DConditionModel` with fresh weights and every layer in its topology."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = diffusers.UNet2DConditionModel(
            sample_size=8,
            layers_per_block=1,
            block_out_channels=(32, 64),
            norm_num_groups=8,
            attention_head_dim=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=TEXT,
        )
    layers = tuple(
        Layer(
            name=name,
            kind="conv2d" if isinstance(module, nn.Conv2d) else "linear",
            role="other",
            block=name,
            weight_shape=tuple(module.weight.shape),
            macs=module.weight.numel(),
        )
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    )
    return LoadedModel(
        model=TextModel(),
        network=network.eval().requires_grad_(False),
        topology=Topology(layers=layers, blocks=()),
        sampler=SimpleNamespace(timesteps=TIMESTEPS),
        device="cpu",
    )


@torch.no_grad()
def test_text_network_agrees_with_the_simulation(loaded):
    """At every step, for a batch that it was not traced for, each layer by its integers."""
    x = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    condition = loaded.model.conditions(range(3), device="cpu")
    state = _state(loaded, x, condition)
    lowered, simulated = OpenVinoBackend().lower(loaded, state), simulate(loaded, state)
    assert [None] * len(state.layers) == [use.fallback for use in lowered.kernels]
    for step, timestep in enumerate(TIMESTEPS):
        t = torch.full((3,), timestep)
        for one in (lowered, simulated):
            one.step.set(step)
        expected = loaded.model.predict(simulated.network, x, t, condition)
        found = loaded.model.predict(lowered.network, x, t, condition)
        assert (found - expected).norm() <= 0.02 * expected.norm()
    with watched_layers(loaded, state, lowered) as watch:
        loaded.model.predict(lowered.network, x, t, condition)
    assert len(watch.checks) == len(state.layers)


@torch.no_grad()
@pytest.mark.parametrize(("limit", "kept"), [(2**32, 3), (1, 1)])
def test_large_networks_keep_one_compiled_model(loaded, limit, kept, monkeypatch):
    """Each has its own packed weights; what is dropped is compiled again, to the same bits."""
    monkeypatch.setattr("tfq_bench_openvino.network.LIMIT_BYTES", limit)
    x = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    condition = loaded.model.conditions(range(3), device="cpu")
    lowered = OpenVinoBackend().lower(loaded, _state(loaded, x, condition))
    t = torch.full((3,), TIMESTEPS[0])
    first = loaded.model.predict(lowered.network, x, t, condition)
    one = {name: value[:1] for name, value in condition.items()}
    loaded.model.predict(lowered.network, x[:1], t[:1], one)
    assert torch.equal(first, loaded.model.predict(lowered.network, x, t, condition))
    assert kept == len(lowered.network.forward._ready)


def _state(loaded, x, condition) -> QuantizedState:
    """4-bit weights, and the ranges that each layer's input has when the network sees `x`."""
    ranges = {}

    def watch(name):
        return lambda _, inputs: ranges.update({name: inputs[0].aminmax()})

    modules = dict(loaded.network.named_modules())
    names = [layer.name for layer in loaded.topology.layers]
    handles = [modules[name].register_forward_pre_hook(watch(name)) for name in names]
    loaded.model.predict(loaded.network, x, torch.full((len(x),), 500), condition)
    for handle in handles:
        handle.remove()
    return QuantizedState(
        model=loaded.model.digest,
        method="by hand",
        scheme=Scheme(wbits=4, abits=8),
        timesteps=TIMESTEPS,
        layers={
            name: quantized_layer(name, modules[name], float(low), float(high), wbits=4)
            for name, (low, high) in ranges.items()
        },
        exempt={},
    )
