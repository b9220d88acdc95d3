"""What the distribution offers to the host."""

import subprocess
import sys

import pytest

from tfq_bench.api import AssetError
from tfq_bench_cifar10.model import Cifar10Model
from tfq_bench_cifar10.network import NETWORKS
from tfq_bench_cifar10.plugin import tfq_models
from tfq_bench_cifar10.topology import network_topology

PROVIDERS = {provider.name: provider for provider in tfq_models()}


@pytest.fixture
def table(plugin_host):
    """The host with this plugin alone."""
    plugin_host.install("cifar10", "tfq_bench_cifar10.plugin", distribution="tfq-bench-cifar10")
    return plugin_host.discover()


def defaults(provider):
    """Its options as a suite that names none of them gives them."""
    return {option.name: option.default for option in provider.options}


def test_the_host_finds_and_makes_the_models(table, network):
    """Each provider is valid, bears its distribution's name and makes its network's model."""
    provider = table.get("model", network.model)
    model = table.create(provider, **defaults(provider))
    assert isinstance(model, Cifar10Model)
    assert network.name == model.network.name


def test_every_network_is_offered():
    """No network that can be trained is without a model."""
    assert [network.model for network in NETWORKS.values()] == list(PROVIDERS)


def test_models_without_their_weights_are_listed_all_the_same(table, embed, tmp_path, network):
    """An empty folder of weights is noticed when the model is used, not when it is found."""
    embed(tmp_path)
    provider = table.get("model", network.model)
    model = table.create(provider, **defaults(provider))
    with pytest.raises(AssetError, match="its weights are not embedded"):
        _ = model.digest


def test_guidance_is_an_option_of_the_models_that_know_classes(random_weights, embed):
    """The default scale reaches the model."""
    embed(random_weights)
    found = {
        network.model: Cifar10Model(network, **defaults(PROVIDERS[network.model])).guidance(
            device="cpu"
        )
        for network in NETWORKS.values()
    }
    assert found["cifar10"] is None
    assert found["cifar10-conditional"].scale == found["cifar10-dit"].scale == 1.5


def test_every_offered_sampler_exists(network):
    """The names that the plan checks a suite against are those that the model knows."""
    provider = PROVIDERS[network.model]
    assert ("ddim", "ddim-quadratic") == provider.samplers
    for name in provider.samplers:
        assert name == Cifar10Model(network).sampler(name, 10).definition["name"]


def test_stated_work_is_that_of_the_network(network):
    """The cost estimate of a plan rests on the measured multiply-accumulates."""
    topology = network_topology(network, network.build(0.0))
    total = sum(layer.macs for layer in topology.layers)
    assert PROVIDERS[network.model].gmac == pytest.approx(total / 1e9, rel=0.01)


def test_entry_point_imports_no_torch():
    """Listing plugins must stay cheap."""
    code = "import sys, tfq_bench_cifar10.plugin; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
