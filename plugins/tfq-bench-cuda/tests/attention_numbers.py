"""Operands of attentions, and what comes out in float64."""

from __future__ import annotations

import torch

from tfq_bench_cuda.kernels.norms import Table


def operands(batch, heads, queries, length, channels, *, dtype=torch.bfloat16, peak=1.0):
    """Queries, keys with a large common vector, and values; `[batch, tokens, heads, channels]`."""
    generator = torch.Generator().manual_seed(0)

    def normal(tokens):
        return torch.randn(batch, tokens, heads, channels, generator=generator)

    common = 4 * torch.randn(1, 1, heads, channels, generator=generator)
    q, k, v = normal(queries) * peak, normal(length) + common, normal(length)
    return tuple(x.to(dtype).transpose(1, 2) for x in (q, k, v))


def exact(q, k, v, scale=None):
    """Attention in float64."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    logits = q.double() @ k.double().transpose(2, 3) * scale
    return torch.softmax(logits, -1) @ v.double()


def error(found, expected):
    """Root mean square of the difference over that of what is expected."""
    found, expected = found.double().cpu(), expected.double().cpu()
    return ((found - expected).square().mean() / expected.square().mean()).sqrt().item()


def hiding(q, length, hidden):
    """A mask that hides the last keys of the second image, and `exact` under it."""
    mask = torch.zeros(q.shape[0], length, dtype=q.dtype, device=q.device)
    mask[1, length - hidden :] = -10000.0
    mask[:, ::3] += 0.5
    return mask


def exact_masked(q, k, v, mask):
    """Attention in float64 with a mask of keys."""
    logits = q.double() @ k.double().transpose(2, 3) * q.shape[-1] ** -0.5
    return torch.softmax(logits + mask.double()[:, None, None], -1) @ v.double()


def table(channels, **values):
    """Codes of three steps."""
    inverse = torch.tensor([20.0, 300.0, 60.0])
    zero_point = torch.tensor([128, 3, 77], dtype=torch.int32)
    fields = {"start": 0, "channels": channels, "bits": 8, "inverse": inverse}
    return Table(**fields | {"zero_point": zero_point} | values)
