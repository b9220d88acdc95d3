"""The embedded network and its schedule."""

import torch

from tfq_bench_cifar10.network import TRAIN_STEPS, alphas_cumprod, build_unet


def test_the_network_has_its_documented_size():
    """The network has exactly the 6,472,195 parameters that the exported weights hold."""
    assert sum(value.numel() for value in build_unet().parameters()) == 6_472_195


def test_attention_sits_at_16x16_and_in_the_middle():
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


def test_the_output_has_the_shape_of_the_input():
    """The network predicts one epsilon for each value of the image."""
    unet = build_unet().eval()
    with torch.no_grad():
        epsilon = unet(torch.zeros(2, 3, 32, 32), torch.tensor([0, TRAIN_STEPS - 1])).sample
    assert torch.Size((2, 3, 32, 32)) == epsilon.shape


def test_the_schedule_is_the_linear_one():
    """alpha-bar is the float64 product of 1 - beta with beta from 1e-4 to 0.02 in 1,000 steps."""
    expected, product = [], 1.0
    for i in range(1000):
        product *= 1.0 - (1e-4 + (0.02 - 1e-4) * i / 999)
        expected.append(product)
    torch.testing.assert_close(
        torch.tensor(expected, dtype=torch.float64), alphas_cumprod(), rtol=1e-12, atol=0
    )
