"""What the distribution offers to the host."""

import subprocess
import sys

import pytest

from tfq_bench_cifar10.model import Cifar10Model
from tfq_bench_cifar10.plugin import tfq_models
from tfq_bench_cifar10.topology import unet_topology


@pytest.fixture
def table(plugin_host):
    """The host with this plugin alone."""
    plugin_host.install("cifar10", "tfq_bench_cifar10.plugin", distribution="tfq-bench-cifar10")
    return plugin_host.discover()


def test_the_host_finds_and_makes_the_model(table):
    """The provider is valid, bears its distribution's name and makes a `Cifar10Model`."""
    assert "cifar10" in table.names("model")
    assert isinstance(table.create(table.get("model", "cifar10")), Cifar10Model)


def test_every_offered_sampler_exists():
    """The names that the plan checks a suite against are those that the model knows."""
    (provider,) = tfq_models()
    assert ("ddim", "ddim-quadratic") == provider.samplers
    for name in provider.samplers:
        assert name == Cifar10Model().sampler(name, 10).definition["name"]


def test_stated_work_is_that_of_the_network(random_weights, embed):
    """The cost estimate of a plan rests on the measured multiply-accumulates."""
    import torch

    embed(random_weights)
    network = Cifar10Model().load(device="cpu", dtype=torch.float32)
    (provider,) = tfq_models()
    total = sum(layer.macs for layer in unet_topology(network).layers)
    assert provider.gmac == pytest.approx(total / 1e9, rel=0.01)


def test_entry_point_imports_no_torch():
    """Listing plugins must stay cheap."""
    code = "import sys, tfq_bench_cifar10.plugin; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
