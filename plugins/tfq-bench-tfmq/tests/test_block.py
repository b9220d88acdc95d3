"""The block found in a network computes what the network does, or is refused with a reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from tfq_bench.api import LoadedModel, QuantizationError, Scheme, Topology
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant import simulate, temporal_features
from tfq_bench.quant.rtn import RoundToNearest
from tfq_bench.seeds import generator
from tfq_bench.testing.fingerprint import Fingerprint
from tfq_bench.testing.tiny import TinyNetwork, load_tiny
from tfq_bench_tfmq.find_block import find_temporal_block


def _embedded():
    from tfq_bench_cifar10.network import NETWORKS, build_unet
    from tfq_bench_cifar10.topology import network_topology

    class Untrained:
        digest, latent_shape = "untrained", (3, 32, 32)

        def predict(self, network, x, timestep, condition):
            return network(x, timestep).sample

        def conditions(self, images, *, device):
            return {}

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_unet().eval().requires_grad_(False)
    return LoadedModel(
        model=Untrained(),
        network=network,
        topology=network_topology(NETWORKS["unet"], network),
        sampler=load_tiny(steps=5).sampler,
        device="cpu",
    )


@pytest.mark.parametrize("load", [load_tiny, _embedded])
def test_block_gives_the_networks_features(load):
    """Chained layers on the table equal what forward hooks see at every step of the sampler."""
    loaded = load()
    before = Fingerprint(loaded.network)
    features = find_temporal_block(loaded).features()
    before.check(loaded.network)
    expected = temporal_features(loaded, loaded.network)
    assert list(expected) == list(features)
    for name, rows in expected.items():
        assert float((rows - features[name]).norm() / rows.norm()) < 1e-6, name


def test_activations_are_found(block):
    """SiLU before each layer but the first."""
    assert ["nothing", "SiLU", "SiLU", "SiLU"] == [block.before[name] for name in block.layers]


def test_features_do_not_depend_on_the_image(loaded):
    """Two images have one temporal feature."""
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    one = temporal_features(loaded, loaded.network)
    other = temporal_features(loaded, loaded.network, x=x)
    assert all(torch.equal(rows, other[name]) for name, rows in one.items())


class _Conditioned(TinyNetwork):
    """Adds `extra(x)` to h before the activation, as SDXL adds its embedding of the prompt."""

    def forward(self, x, timestep):
        handle = self.time_mlp.register_forward_hook(lambda _, __, h: h + self.extra(x))
        try:
            return super().forward(x, timestep)
        finally:
            handle.remove()


def _with(loaded, extra):
    network = loaded.network
    network.__class__ = _Conditioned
    network.extra = extra
    return loaded


def test_data_that_enter_before_the_activation_are_refused(loaded):
    """The message names the layer and says what differs."""
    with pytest.raises(QuantizationError, match=r"'first.time' differs between two images"):
        find_temporal_block(_with(loaded, lambda x: x.mean(dim=(1, 2, 3))[:, None]))


def test_unknown_functions_are_refused(loaded):
    """A constant that enters is no function of the layer before."""
    with pytest.raises(QuantizationError, match=r"'first\.time'.*not understood.*time_mlp\.2"):
        find_temporal_block(_with(loaded, lambda x: torch.ones(())))


@pytest.mark.parametrize("missing", ["time_mlp", "time_projections"])
def test_no_temporal_block_is_an_error(loaded, missing):
    """It says what is missing and what to do."""
    topology = Topology(
        layers=loaded.topology.layers,
        blocks=loaded.topology.blocks,
        time_mlp=() if missing == "time_mlp" else loaded.topology.time_mlp,
        time_projections=(
            () if missing == "time_projections" else loaded.topology.time_projections
        ),
        time_features=() if missing == "time_projections" else loaded.topology.time_features,
    )
    bare = LoadedModel(
        model=loaded.model,
        network=loaded.network,
        topology=topology,
        sampler=loaded.sampler,
        device="cpu",
    )
    with pytest.raises(QuantizationError, match="needs a network with a time MLP"):
        find_temporal_block(bare)


def test_block_is_differentiable(block):
    """Gradients reach the weights given to it."""
    name = block.layers[0]
    weight = block.weights[name].clone().requires_grad_()
    features = block.features({name: weight})
    sum(F.mse_loss(rows, torch.zeros_like(rows)) for rows in features.values()).backward()
    assert float(weight.grad.abs().sum()) > 0


def test_features_computed_from_features_are_tied(loaded, block):
    """Where h is a feature as well, everything rests on it; else each stands alone."""
    assert (0, 1) == block.ties()
    names = (block.layers[1], *block.outputs)
    chained = replace(loaded, topology=replace(loaded.topology, time_features=names))
    assert (0, 0, 0) == find_temporal_block(chained).ties()


def test_half_layers_are_rounded_as_a_backend_does(loaded, block):
    """The block with float16 layers gives what the lowered network adds."""
    scheme = Scheme(wbits=4, abits=8, policy="uniform-temporal16")
    quantizer = RoundToNearest(scheme=scheme)
    data = capture(
        loaded,
        quantizer.calibration_needs(loaded, images=1),
        seed=0,
        batch=1,
        progress=lambda *_: None,
    )
    state = quantizer.quantize(
        loaded, data, generator=generator(0, "test"), progress=lambda *_: None
    )
    expected = temporal_features(loaded, simulate(loaded, state))
    rounded, exact = block.in_half(block.layers).features(), block.features()
    for name, rows in expected.items():
        error = float((rounded[name] - rows).norm() / rows.norm())
        assert error < 1e-6 < 1e-5 < float((exact[name] - rows).norm() / rows.norm()), name
