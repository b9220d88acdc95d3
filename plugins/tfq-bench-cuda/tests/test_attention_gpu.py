"""8-bit attention on a GPU, against float64 and the reference."""

from __future__ import annotations

import pytest
import torch

from tfq_bench_cuda.kernels.attention import attention8
from tfq_bench_cuda.kernels.attention_reference import codes_of

from .attention_numbers import error, exact, exact_masked, hiding, operands, table

pytestmark = pytest.mark.gpu


def on_gpu(*shape, **options):
    """The operands on the GPU."""
    return tuple(x.cuda() for x in operands(*shape, **options))


@pytest.mark.parametrize(
    ("shape", "options", "most"),
    [
        ((2, 10, 4096, 4096, 64), {}, 0.02),
        ((2, 20, 1024, 77, 64), {}, 0.015),
        ((2, 16, 256, 256, 72), {}, 0.015),
        *(((1, 3, 100, 1000, channels), {"qk": "bf16"}, 0.004) for channels in (64, 72, 96, 160)),
        ((1, 3, 100, 1000, 64), {"pv": "fp8"}, 0.05),
        *(
            ((2, 3, 130, 77, channels), {"qk": "bf16"}, 0.004)
            for channels in (40, 64, 80, 128, 160)
        ),
        *(((2, 3, 130, 200, channels), {}, 0.015) for channels in (32, 40, 80, 96, 128, 160)),
        *(((2, 3, 130, 200, channels), {"pv": "fp8"}, 0.05) for channels in (40, 72, 128, 160)),
    ],
)
def test_attention_on_the_gpu(shape, options, most):
    """Against float64, and twice the same bits."""
    q, k, v = on_gpu(*shape)
    found = attention8(q, k, v, **options)
    assert found.transpose(1, 2).is_contiguous()
    assert torch.equal(found, attention8(q, k, v, **options))
    for head in range(shape[1]):
        one = slice(head, head + 1)
        assert error(found[:, one], exact(q[:, one], k[:, one], v[:, one])) < most


@pytest.mark.parametrize("channels", [64, 72])
def test_masked_attention_on_the_gpu(channels):
    """Against float64, each image with other keys hidden."""
    q, k, v = on_gpu(2, 16, 1024, 300, channels)
    mask = hiding(q, 300, 280)
    found = attention8(q, k, v, qk="bf16", mask=mask)
    assert error(found, exact_masked(q, k, v, mask)) < 0.004


@pytest.mark.parametrize(("dtype", "peak"), [(torch.float16, 1.0), (torch.bfloat16, 12.0)])
def test_attention_on_the_gpu_is_that_of_the_reference(dtype, peak):
    """Other orders of sums, and `p` in 16 bit; large logits, whose maximum is followed."""
    q, k, v = on_gpu(2, 4, 256, 300, 64, dtype=dtype, peak=peak)
    found = attention8(q, k, v)
    expected = attention8(q.cpu(), k.cpu(), v.cpu())
    assert error(found, expected) < 0.004


@pytest.mark.parametrize(("qk", "length"), [("int8", 256), ("bf16", 77)])
def test_captured_attention_follows_the_step_and_its_input(qk, length):
    """A graph of all launches, replayed at another step with other operands, writes its codes."""
    codes, step = table(128), torch.tensor([0], device="cuda")
    names = ("inverse", "zero_point")
    on_device = {name: getattr(codes, name).cuda() for name in names}
    codes = table(128, **on_device)
    q, k, v = on_gpu(1, 2, 256, length, 64)
    attention8(q, k, v, qk=qk, codes=codes, step=step)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = attention8(q, k, v, qk=qk, codes=codes, step=step)
    for x in (q, k, v):
        x.copy_(x.flip(2) * 0.5)
    step.fill_(2)
    graph.replay()
    assert torch.equal(captured, attention8(q, k, v, qk=qk, codes=codes, step=step))
    expected = codes_of(exact(q, k, v).float(), codes, step)
    assert (captured.int() - expected.int()).abs().max() <= 3
