"""The host's attention processor computes what the network's own does."""

import torch

from tfq_bench.quant.lower.attention import AttentionProcessor
from tfq_bench_cifar10.network import NETWORKS, build_unet
from tfq_bench_cifar10.topology import network_topology


def test_every_attention_is_found_and_computed_alike():
    """Six attentions; exchanging their processors moves the prediction by rounding only."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_unet().eval().requires_grad_(False)
        x = torch.randn(1, 3, 32, 32)
    names = network_topology(NETWORKS["unet"], network).attention
    expected = network(x, torch.tensor([500])).sample
    seen = []
    for name in names:
        network.get_submodule(name).set_processor(
            AttentionProcessor(lambda point, value: seen.append(point) or value)
        )
    found = network(x, torch.tensor([500])).sample
    assert len(names) == 6
    assert ["q", "k", "v", "softmax"] * 6 == seen
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
