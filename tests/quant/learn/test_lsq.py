"""Learned activation steps: forward equals quantization, gradients go straight through."""

from __future__ import annotations

import pytest
import torch

from tfq_bench.quant import ActivationQParams, fake_quantize
from tfq_bench.quant.learn.lsq import LSQFakeQuantize

STATIC = torch.zeros(1, dtype=torch.int64)


def _table(scales, zeros, bits=4):
    return ActivationQParams(
        bits=bits,
        scale=torch.tensor(scales, dtype=torch.float32),
        zero_point=torch.tensor(zeros, dtype=torch.int32),
    )


def test_forward_is_fake_quantization():
    """Without learning it does what the simulation does, up to the last bit of the scale."""
    x = torch.linspace(-3, 3, 1001)[None]
    found = LSQFakeQuantize(_table([0.25], [7]), "cpu")(x, STATIC)
    expected = fake_quantize(x, torch.tensor(0.25), torch.tensor(7), 4)
    torch.testing.assert_close(expected, found)


def test_what_is_not_learned_keeps_its_table_to_the_bit():
    """Static methods freeze the scales that they found, and quantize as the kernels do."""
    scales = [0.3, 0.07, 1.9, 0.013]
    table = _table(scales, [3, 8, 0, 15])
    learned = LSQFakeQuantize(table, "cpu")
    assert torch.equal(table.scale, learned.table().scale)
    x = torch.randn(1, 4096, generator=torch.Generator().manual_seed(0))
    for step in range(len(scales)):
        expected = fake_quantize(x, table.scale[step], table.zero_point[step], 4)
        assert torch.equal(expected, learned(x, torch.tensor([step])))


def test_each_sample_reads_its_step():
    """A batch of mixed steps takes each row's parameters."""
    learned = LSQFakeQuantize(_table([0.1, 0.2, 0.4], [0, 8, 15]), "cpu")
    x = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    mixed = learned(x, torch.tensor([2, 0, 1]))
    for row, step in enumerate([2, 0, 1]):
        alone = learned(x[row : row + 1], torch.tensor([step]))
        assert torch.equal(alone, mixed[row : row + 1])


def test_gradients_pass_rounding_and_stop_at_the_ends():
    """The input's gradient is 1 inside of the range and 0 outside."""
    x = torch.tensor([[-5.0, -0.3, 0.2, 5.0]], requires_grad=True)
    LSQFakeQuantize(_table([0.1], [8]), "cpu")(x, STATIC).sum().backward()
    assert pytest.approx([0.0, 1.0, 1.0, 0.0], abs=1e-5) == x.grad[0].tolist()


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("index", [[2], [2, 0, 1]], ids=["one step", "mixed steps"])
def test_value_and_gradients_are_those_of_the_formula_bit_by_bit(bits, index):
    """Written out with operations that change nothing in place: of the input and of the scales."""
    generator = torch.Generator().manual_seed(bits)
    scales, zeros = [0.3, 0.07, 1.9], [0, 2, 2**bits - 1]
    learned = LSQFakeQuantize(_table(scales, zeros, bits), "cpu")
    learned.log_ratio.data = torch.tensor([0.1, 0.0, -0.2])
    learned.log_ratio.requires_grad_(True)
    x = torch.randn(3, 5, 4, 4, generator=generator).mul_(3).requires_grad_(True)
    weight = torch.randn(3, 5, 4, 4, generator=generator)
    steps = torch.tensor(index)
    found = learned(x, steps)
    found.mul(weight).sum().backward()
    gradients = x.grad, learned.log_ratio.grad
    x.grad = learned.log_ratio.grad = None

    s = learned.scale()[steps].view(-1, 1, 1, 1)
    z = torch.tensor(zeros)[steps].view(-1, 1, 1, 1).float()
    scaled = x * s.reciprocal()
    codes = (scaled + (scaled.round() - scaled).detach() + z).clamp(0.0, 2.0**bits - 1.0)
    expected = s * (codes - z)
    expected.mul(weight).sum().backward()
    assert torch.equal(expected, found)
    assert torch.equal(x.grad, gradients[0])
    assert torch.equal(learned.log_ratio.grad, gradients[1])


def test_a_bad_step_is_learned_away():
    """From a scale four times too small, descent finds one with a third of the error or less."""
    x = torch.randn(1, 4096, generator=torch.Generator().manual_seed(1))
    learned = LSQFakeQuantize(_table([0.1], [8]), "cpu")
    learned.log_ratio.requires_grad_(True)
    optimizer = torch.optim.Adam([learned.log_ratio], lr=0.05)

    def error():
        return (learned(x, STATIC) - x).square().mean()

    before = error().item()
    for _ in range(100):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
    assert error().item() < before / 3
    assert torch.equal(torch.tensor([8], dtype=torch.int32), learned.table().zero_point)
