"""Attention of diffusers between codes: its input's in, the sum with a residual out.

Queries, keys and values are views of what their product wrote; attention reads them as they lie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from tfq_bench_cuda.blocks.attend import Attend, attend
from tfq_bench_cuda.blocks.fused import kernel_layer, needs
from tfq_bench_cuda.blocks.projections import Projections
from tfq_bench_cuda.kernels.attention import attention8
from tfq_bench_cuda.kernels.attention_specs import CHANNELS
from tfq_bench_cuda.kernels.norms import row_codes
from tfq_bench_cuda.kernels.operands import Additions
from tfq_bench_cuda.kernels.specs import Ending
from tfq_bench_cuda.layers import CudaLinear

__all__ = ["CrossAttention", "SelfAttention", "check_attention"]


def check_attention(block: nn.Module, path: str) -> None:
    """Nothing, when the `Attention` of a block at a path does what is computed here.

    Raises:
        Unfusable: another processor, norms of queries or keys, further inputs, or no kernels.
    """
    attn = cast(Any, block.get_submodule(path))
    processor = type(attn.processor)
    needs(
        processor.__name__ == "AttnProcessor2_0" and processor.__module__.startswith("diffusers."),
        f"attention '{path}' has the processor {processor.__name__}, expected AttnProcessor2_0",
    )
    for name in ("spatial_norm", "group_norm", "norm_q", "norm_k", "norm_cross"):
        needs(getattr(attn, name) is None, f"attention '{path}' has a '{name}'")
    needs(attn.added_kv_proj_dim is None, f"attention '{path}' has added keys and values")
    needs(attn.inner_kv_dim == attn.inner_dim, f"attention '{path}' has fewer heads for keys")
    needs(
        not attn.residual_connection and attn.rescale_output_factor == 1.0,
        f"attention '{path}' adds or scales after its output layer",
    )
    for name in ("to_q", "to_k", "to_v", "to_out.0"):
        kernel_layer(block, f"{path}.{name}", CudaLinear)


class _Attention:
    """What self- and cross-attention share: heads, and the output layer with its residual.

    Args:
        attn: of which `check_attention` approves.
        gated: whether the output is multiplied by a gate before the residual is added.
        adds: whether a residual is added.

    Attributes:
        qk: the first product of `kernels.attention`, `bf16` or `int8`, which then writes codes of
            the output layer; None: torch's attention, whose result is quantized.
        most_keys, most_masked_keys: for which `qk` holds, without and with a mask of keys.
        refusal: why `kernels.attention` cannot compute it.
    """

    qk: str | None = None
    most_keys: float = math.inf
    most_masked_keys: float = 0

    def __init__(self, attn: nn.Module, *, gated: bool, adds: bool = True) -> None:
        self.attn = cast(Any, attn)
        self.out = kernel_layer(attn, "to_out.0", CudaLinear)
        dtype = self.out.runs.out
        self.out.runs = Ending(gate=gated, residual=dtype if adds else "", out=dtype)
        self.adds = adds
        self.refusal = _refusal(self.out, self.attn.inner_dim // self.attn.heads)
        self.attend: Attend = attend

    def _mixed(
        self, q: Tensor, k: Tensor, v: Tensor, images: int, mask: Tensor | None
    ) -> list[Tensor]:
        """Codes of the output layer's parts, of queries `[M, C]`, keys and values `[B * T, C]`."""
        heads, step = self.attn.heads, self.out.step.index
        q, k, v = (
            y.view(images, -1, heads, y.shape[-1] // heads).transpose(1, 2) for y in (q, k, v)
        )
        row = _mask_of_keys(mask, k)
        most = self.most_keys if mask is None else self.most_masked_keys
        fits = k.shape[2] <= most and (mask is None or row is not None)
        if self.qk is not None and self.refusal is None and fits:
            (table,) = self.out.tables
            return [attention8(q, k, v, qk=self.qk, mask=row, codes=table, step=step)]
        if mask is not None:
            mask = self.attn.prepare_attention_mask(mask, k.shape[2], images)
            mask = mask.view(images, heads, -1, mask.shape[-1])
        rows = self.attend(q, k, v, mask).transpose(1, 2).flatten(2).flatten(0, 1)
        return row_codes(rows, step=step, tables=self.out.tables)

    def _ended(self, codes: Sequence[Tensor], x: Tensor, gate: Tensor | None) -> Tensor:
        """`x + gate * to_out`, shape of x `[B, S, C]`."""
        residual = x.view(-1, x.shape[-1]) if self.adds else None
        additions = Additions(residual=residual, gate=gate)
        return self.out.product(codes, self.out.runs, additions).view(*x.shape[:2], -1)


def _mask_of_keys(mask: Tensor | None, k: Tensor) -> Tensor | None:
    """`[B, T]` of a mask of keys as diffusers passes it, `[B, 1, T]`; None of any other.

    Args:
        k: `[B, H, T, D]`.
    """
    if mask is None or mask.dtype != k.dtype or mask.shape != (k.shape[0], 1, k.shape[2]):
        return None
    return mask[:, 0].contiguous()


def _refusal(out: CudaLinear, channels: int) -> str | None:
    """Why `kernels.attention` cannot end in codes of an output layer, for heads of that size."""
    if out.runs.out not in ("bfloat16", "float16"):
        return f"the network is in {out.runs.out}, not in 16 bit"
    if channels not in CHANNELS:
        return f"a head has {channels} channels, expected one of {CHANNELS}"
    if len(out.parts) > 1:
        return "the output layer reads its input in parts"
    return None


class SelfAttention(_Attention):
    """Attention of tokens among each other; see `_Attention`.

    On an H100 cuDNN's 16-bit attention is as fast as ours in int8, so `qk` is None unless asked.
    """

    def __init__(self, attn: nn.Module, *, gated: bool = False, adds: bool = True) -> None:
        super().__init__(attn, gated=gated, adds=adds)
        self.projections = Projections(
            [kernel_layer(attn, f"to_{name}", CudaLinear) for name in "qkv"]
        )
        self.tables = self.projections.tables
        self.layers = (*self.projections.layers, self.out)

    def __call__(
        self,
        codes: Sequence[Tensor],
        x: Tensor,
        mask: Tensor | None = None,
        gate: Tensor | None = None,
    ) -> Tensor:
        """`x + gate * attention`, `[B, S, C]`.

        Args:
            codes: int8 of the input, for each of `tables`.
            x: what is added. mask: as diffusers passes it.
            gate: float32 `[B, C]`, when it was made `gated`.
        """
        q, k, v = self.projections(codes)
        return self._ended(self._mixed(q, k, v, len(x), mask), x, gate)


class CrossAttention(_Attention):
    """Attention to a text; see `_Attention`.

    For few keys our 16-bit kernel is faster than cuDNN's, and saves the quantization after it. With
    a mask torch takes a slower kernel than cuDNN's, so ours is taken for more keys.

    Attributes:
        steady: whether keys and values are the same at every step.
        held: keys and values `[B, T, C]` of the text, which are read in the place of computing
            them at every step; `context.ContextCache` sets and fills them.
    """

    qk = "bf16"
    most_keys = 128
    most_masked_keys = 512

    def __init__(self, attn: nn.Module) -> None:
        super().__init__(attn, gated=False)
        self.queries = Projections([kernel_layer(attn, "to_q", CudaLinear)])
        self.text = Projections([kernel_layer(attn, f"to_{name}", CudaLinear) for name in "kv"])
        self.tables = self.queries.tables
        self.layers = (*self.queries.layers, *self.text.layers, self.out)
        self.steady = all(layer.steady for layer in self.text.layers)
        self.held: list[Tensor] | None = None

    def keys_values(self, text: Tensor) -> list[Tensor]:
        """Keys and values, each `[B, T, C]`, of a text `[B, T, C_text]`."""
        rows = text.reshape(-1, text.shape[-1]).contiguous()
        codes = row_codes(rows, step=self.out.step.index, tables=self.text.tables)
        return [y.view(*text.shape[:2], -1) for y in self.text(codes)]

    def __call__(
        self, codes: Sequence[Tensor], x: Tensor, text: Tensor, mask: Tensor | None
    ) -> Tensor:
        """`x + attention`, `[B, S, C]`; arguments as those of `SelfAttention`."""
        (q,) = self.queries(codes)
        if self.held is not None and self.held[0].shape[:2] == text.shape[:2]:
            k, v = self.held
        else:
            k, v = self.keys_values(text)
        return self._ended(self._mixed(q, k, v, len(x), mask), x, None)
