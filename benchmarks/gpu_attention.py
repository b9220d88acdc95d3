"""Attention on one GPU: torch and cuDNN in BF16, and `tfq_bench_cuda.kernels.attention`.

    python benchmarks/gpu_attention.py > attention.md
    python benchmarks/gpu_attention.py --blocks         # also blocks that are not chosen

us: CUDA events around a graph of 20 calls, median of 9 replays, keys prepared within. `to codes`:
with codes of the output layer, for which cuDNN needs another kernel. Error: root mean square of the
difference from float64, over that of the result. Numbers are random; keys have a vector in common,
as those of a network do, and `peak` multiplies queries, so that few keys have the weight.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from gpu.timing import captured, interleaved, table
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from tfq_bench_cuda.blocks.attend import attend
from tfq_bench_cuda.kernels.attention import attention8
from tfq_bench_cuda.kernels.attention_specs import Blocks, choose_blocks
from tfq_bench_cuda.kernels.norms import Table, row_codes

CALLS = 20

PRODUCTS = {
    "int8, bf16": {"qk": "int8", "pv": "bf16"},
    "int8, fp8": {"qk": "int8", "pv": "fp8"},
    "bf16, bf16": {"qk": "bf16", "pv": "bf16"},
}
"""Of queries and keys, and of what follows with values."""


class Shape(NamedTuple):
    """Of one attention, in the order in which it is printed; `masked`: the last keys, hidden."""

    network: str
    images: int
    heads: int
    queries: int
    keys: int
    channels: int
    peak: float = 1.0
    masked: int = 0


SHAPES = [
    Shape("SDXL", 2, 10, 4096, 4096, 64),
    Shape("SDXL", 2, 10, 4096, 4096, 64, peak=12.0),
    Shape("SDXL", 2, 20, 1024, 1024, 64),
    Shape("SDXL", 2, 10, 4096, 77, 64),
    Shape("SDXL", 2, 20, 1024, 77, 64),
    Shape("SD 1.5", 2, 8, 4096, 77, 40),
    Shape("SD 1.5", 2, 8, 1024, 77, 80),
    Shape("SD 1.5", 2, 8, 256, 77, 160),
    Shape("PixArt", 2, 16, 4096, 4096, 72),
    Shape("PixArt", 2, 16, 4096, 300, 72, masked=250),
    Shape("DiT", 2, 16, 256, 256, 72),
]

BLOCKS = [
    Blocks(queries=m, keys=n, warps=warps, stages=stages)
    for m, n, warps, stages in (
        (64, 64, 4, 3), (128, 64, 8, 3), (128, 64, 4, 3), (64, 128, 4, 2), (128, 128, 8, 2),
        (128, 32, 4, 2), (64, 32, 4, 2),
    )
]  # fmt: skip


def operands(shape: Shape, device: str = "cuda") -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values `[B, H, tokens, D]`, bfloat16, heads beside each other in memory."""

    def normal(images: int, tokens: int) -> Tensor:
        return torch.randn(images, tokens, shape.heads, shape.channels, generator=generator)

    generator = torch.Generator().manual_seed(0)
    q = normal(shape.images, shape.queries) * shape.peak
    k = normal(shape.images, shape.keys) + 3 * normal(1, 1)
    v = normal(shape.images, shape.keys)
    return tuple(x.to(device, torch.bfloat16).transpose(1, 2) for x in (q, k, v))


def hiding(shape: Shape, q: Tensor) -> Tensor | None:
    """A mask `[B, L]` as diffusers makes it, None where nothing is hidden."""
    if not shape.masked:
        return None
    mask = q.new_zeros(shape.images, shape.keys)
    mask[:, -shape.masked :] = -10000.0
    return mask


def exact(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """The same in float64, one head at a time."""
    heads = zip(*(x.double().unbind(1) for x in (q, k, v)), strict=True)
    scale = q.shape[-1] ** -0.5
    added = 0.0 if mask is None else mask.double()[:, None]
    return torch.stack([(q @ k.mT * scale + added).softmax(-1) @ v for q, k, v in heads], 1)


def contestants(
    shape: Shape, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, others: bool
) -> Iterator[tuple[str, Callable[[], Tensor], Callable[[], Tensor]]]:
    """Name, the call, and the call that ends in codes `[B * S, H * D]`."""
    width = shape.heads * shape.channels
    inverse = torch.tensor([100.0], device=q.device)
    zero_point = torch.tensor([128], dtype=torch.int32, device=q.device)
    codes = Table(start=0, channels=width, bits=8, inverse=inverse, zero_point=zero_point)
    step = torch.zeros(1, dtype=torch.int64, device=q.device)

    of_all = None if mask is None else mask[:, None, None]

    def cudnn() -> Tensor:
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=of_all)

    torchs = {"torch": lambda: attend(q, k, v, of_all)}
    if mask is not None and q.is_cuda:
        torchs["torch (cuDNN)"] = cudnn
    for name, run in torchs.items():

        def quantized(run: Callable[[], Tensor] = run) -> Tensor:
            rows = run().transpose(1, 2).flatten(2).flatten(0, 1)
            return row_codes(rows, step=step, tables=[codes])[0]

        yield name, run, quantized
    for name, options in PRODUCTS.items():
        if mask is not None and options["qk"] != "bf16":
            continue
        chosen = choose_blocks(shape.channels, shape.keys, **options)
        for blocks in dict.fromkeys([chosen, *BLOCKS] if others else [chosen]):
            tile = f"{blocks.queries}x{blocks.keys} {blocks.warps} warps {blocks.stages} stages"
            given = {**options, "mask": mask, "blocks": blocks}
            yield (
                f"{name}: {tile}",
                lambda given=given: attention8(q, k, v, **given),
                lambda given=given: attention8(q, k, v, codes=codes, step=step, **given),
            )


def microseconds(run: Callable[[], Tensor]) -> float:
    """Of one call, within a graph of many."""
    graph = captured(lambda: [run() for _ in range(CALLS)][-1])
    (times,) = interleaved({"": graph}, 9, cold=False).values()
    return statistics.median(times) * 1e3 / CALLS


def main() -> None:
    """Measures and prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--blocks", action="store_true", help="also blocks that are not chosen")
    args = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    for shape in SHAPES:
        q, k, v = operands(shape)
        mask = hiding(shape, q)
        expected, rows = exact(q, k, v, mask), []
        for name, run, to_codes in contestants(shape, q, k, v, mask, others=args.blocks):
            try:
                error = float((run() - expected).norm() / expected.norm())
                us = [f"{microseconds(call):.1f}" for call in (run, to_codes)]
            except Exception as refused:  # too little shared memory, no 8-bit floats
                rows.append((name, type(refused).__name__, "", ""))
                continue
            rows.append((name, *us, f"{error:.4f}"))
        sizes = "x".join(map(str, shape[1:6]))
        hidden = f", {shape.masked} keys hidden" if shape.masked else ""
        print(f"\n### {shape.network} {sizes}, peak {shape.peak:g}{hidden}\n")
        print(table(["products", "us", "us to codes", "error"], rows), flush=True)


if __name__ == "__main__":
    main()
