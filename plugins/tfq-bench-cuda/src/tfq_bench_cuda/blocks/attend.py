"""Softmax attention of all fused blocks, in the kernel that is fastest for the card."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["Attend", "attend"]

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""`attend`, or another function of the same arguments."""

_ORDER = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
"""On an H100 cuDNN takes 0.6 of flash attention's time for SD-XL's shapes; torch asks it last. Each
takes over where those before refuse a type or size of head."""


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """`[B, H, S, D]`: `softmax(q k' / sqrt(D) + mask) v`.

    Args:
        q: `[B, H, S, D]`. k, v: `[B, H, T, D]`. Strided in any way, channels contiguous.
        mask: added to the logits, broadcast to `[B, H, S, T]`, in the type of q.
    """
    if mask is None and q.is_cuda:
        with sdpa_kernel(_ORDER, set_priority=True):
            return F.scaled_dot_product_attention(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
