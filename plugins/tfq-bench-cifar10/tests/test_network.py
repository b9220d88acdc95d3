"""The three networks and their schedule."""

import inspect

import pytest
import torch

from tfq_bench.quant.lower.attention import is_attention
from tfq_bench_cifar10.network import (
    NETWORKS,
    TRAIN_STEPS,
    alphas_cumprod,
    build_conditional,
    build_dit,
    build_trainable,
    build_unet,
    class_table,
)

PARAMETERS = {"unet": 6_472_195, "conditional": 7_524_899, "dit": 7_628_364}


def told(network, module):
    """Its condition for class 3 and for none, by argument name."""
    if not network.argument:
        return {}
    return {network.argument: class_table(getattr(module, "class_tokens", None))[[3, 10]]}


def test_the_network_has_its_documented_size(network):
    """Exactly so many parameters are exported, under 16 MB in float16."""
    count = sum(value.numel() for value in build_trainable(network).parameters())
    assert PARAMETERS[network.name] == count < 8_000_000


def test_attention_of_the_unet_sits_at_16x16_and_in_the_middle():
    """One block of each direction and the middle block attend; the others do not."""
    unet = build_unet()
    attending = [
        name for name, module in unet.named_modules() if name.endswith("attentions.0.to_q")
    ]
    assert attending == [
        "down_blocks.1.attentions.0.to_q",
        "up_blocks.1.attentions.0.to_q",
        "mid_block.attentions.0.to_q",
    ]


def test_cross_attention_sits_at_16x16_and_8x8():
    """Each transformer block attends to the image and to the tokens, none at 32x32."""
    network = build_conditional().eval()
    pixels = {}

    def watch(name):
        return lambda module, args, output: pixels.update({name: output.shape[1]})

    for name, module in network.named_modules():
        if name.endswith("attn2"):
            assert (128, 128) == (module.to_k.in_features, module.to_q.in_features)
            module.register_forward_hook(watch(name))
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32), torch.tensor([5]), torch.zeros(1, 4, 128))
    assert sorted(pixels.values()) == [64] * 4 + [256] * 3


def test_all_attention_can_be_quantized(network):
    """The host knows how to compute each attention itself."""
    found = [module for module in network.build(0.0).modules() if hasattr(module, "to_q")]
    assert {"unet": 6, "conditional": 14, "dit": 10}[network.name] == len(found)
    assert all(is_attention(module) for module in found)


def test_the_output_has_the_shape_of_the_input(network):
    """The network predicts one epsilon for each value of the image."""
    module = build_trainable(network).eval()
    t = torch.tensor([0, TRAIN_STEPS - 1])
    with torch.no_grad():
        epsilon = module(torch.zeros(2, 3, 32, 32), t, **told(network, module)).sample
    assert torch.Size((2, 3, 32, 32)) == epsilon.shape


def test_arguments_are_those_of_forward(network):
    """State and condition go by the names that diffusers gives them."""
    names = list(inspect.signature(network.build(0.0).forward).parameters)
    assert [network.state, "timestep"] == names[:2]
    assert not network.argument or network.argument in names


def test_a_fresh_dit_is_the_identity():
    """Every layer hands on what it receives, and the prediction is zero, at any t and class."""
    dit = build_dit().eval()
    x = torch.randn((2, 256, 192), generator=torch.Generator().manual_seed(0))
    t, labels = torch.tensor([3, 700]), torch.tensor([1, 10])
    with torch.no_grad():
        for block in dit.transformer_blocks:
            assert torch.equal(x, block(x, timestep=t, class_labels=labels))
        assert 0.0 == dit(torch.ones(2, 3, 32, 32), t, labels).sample.abs().max()


def test_a_dit_that_is_trained_drops_no_labels_by_itself():
    """In training mode as well, the labels that a layer is told are those that it uses."""
    embedder = build_dit().train().transformer_blocks[0].norm1.emb.class_embedder
    labels = torch.arange(11).repeat(100)
    assert torch.equal(embedder.embedding_table(labels), embedder(labels))


@pytest.mark.parametrize("name", ["conditional", "dit"])
def test_the_table_of_classes_has_a_row_for_none(name):
    """Ten classes and "no class", each told in its own way."""
    table = class_table(getattr(build_trainable(NETWORKS[name]), "class_tokens", None))
    assert torch.Size((11, 4, 128) if name == "conditional" else (11,)) == table.shape
    assert 11 == len(table.unique(dim=0))


def test_the_schedule_is_the_linear_one():
    """alpha-bar is the float64 product of 1 - beta with beta from 1e-4 to 0.02 in 1,000 steps."""
    expected, product = [], 1.0
    for i in range(1000):
        product *= 1.0 - (1e-4 + (0.02 - 1e-4) * i / 999)
        expected.append(product)
    torch.testing.assert_close(
        torch.tensor(expected, dtype=torch.float64), alphas_cumprod(), rtol=1e-12, atol=0
    )
