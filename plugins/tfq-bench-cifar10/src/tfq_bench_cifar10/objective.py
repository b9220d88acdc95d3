"""What a training step minimizes: the error of the predicted noise, class labels given.

Symbols as in DDPM (arXiv:2006.11239):

| symbol | |
|---|---|
| `x0`, `eps` | image in [-1, 1] and noise, float32 `[B, 3, 32, 32]` |
| `t` | timestep, int64 `[B]`, 0 to 999 |
| `alpha_bar` | float64 `[1000]`, cumulative product of 1 - beta_t |
| `sqrt_ab`, `sqrt_1m_ab` | sqrt(alpha_bar), sqrt(1 - alpha_bar), float32 `[1000]` |
| `x_t` | sqrt_ab x0 + sqrt_1m_ab eps, what the network is given |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from tfq_bench_cifar10.network import NO_CLASS, TRAIN_STEPS, alphas_cumprod, class_table

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tfq_bench_cifar10.network import Network

__all__ = ["Loss", "draw", "make_loss", "snr_weight"]

SNR_LIMIT = 5.0  # gamma of Min-SNR weighting (arXiv:2303.09556)

Loss = Callable[["Tensor", "Tensor", "Tensor", "Tensor"], "Tensor"]
"""Mean loss of x0 `[B, 3, 32, 32]`, t `[B]`, eps like x0 and labels `[B]`."""


def make_loss(network: Network, module: nn.Module, *, kind: str, device: str) -> Loss:
    """The loss of `module`, in bfloat16 where autocast chooses it on CUDA.

    Args:
        module: as `build_trainable` makes it, on `device`.
        kind: `epsilon` for DDPM's plain loss, `min-snr` for the weighted one.
    """
    alpha_bar = alphas_cumprod().to(device)
    sqrt_ab, sqrt_1m_ab = alpha_bar.sqrt().float(), (1.0 - alpha_bar).sqrt().float()
    weight = snr_weight(alpha_bar) if kind == "min-snr" else None
    table = class_table(getattr(module, "class_tokens", None)).to(device)
    device_type = device.split(":")[0]

    def loss(x0: Tensor, t: Tensor, eps: Tensor, labels: Tensor) -> Tensor:
        x_t = sqrt_ab[t].view(-1, 1, 1, 1) * x0 + sqrt_1m_ab[t].view(-1, 1, 1, 1) * eps
        condition = {network.argument: table[labels]} if network.argument else {}
        with torch.autocast(device_type, torch.bfloat16, enabled=device_type == "cuda"):
            predicted = module(x_t, t, **condition, return_dict=False)[0]
        if weight is None:
            return F.mse_loss(predicted.float(), eps)
        return ((predicted.float() - eps).square().mean(dim=(1, 2, 3)) * weight[t]).mean()

    return loss


def draw(
    images: Tensor,
    labels: Tensor,
    batch: int,
    *,
    label_dropout: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One batch: x0 flipped at random, t, eps, labels of which some say "no class".

    Args:
        images: uint8 `[N, 3, 32, 32]`. labels: int64 `[N]`. All on the generator's device.
        label_dropout: share of the labels that are replaced (arXiv:2207.12598, algorithm 1).
    """
    device = images.device
    chosen = torch.randint(len(images), (batch,), generator=generator, device=device)
    x0 = images[chosen].float().div_(127.5).sub_(1.0)
    flip = torch.rand((batch, 1, 1, 1), generator=generator, device=device)
    x0 = torch.where(flip < 0.5, x0.flip(3), x0)
    t = torch.randint(TRAIN_STEPS, (batch,), generator=generator, device=device)
    eps = torch.randn(x0.shape, generator=generator, device=device)
    dropped = torch.rand((batch,), generator=generator, device=device) < label_dropout
    return x0, t, eps, torch.where(dropped, NO_CLASS, labels[chosen])


def snr_weight(alpha_bar: Tensor) -> Tensor:
    """float32 `[1000]`, min(SNR, 5) / SNR of each t."""
    snr = alpha_bar / (1.0 - alpha_bar)
    return (snr.clamp(max=SNR_LIMIT) / snr).float()
