"""Trains the embedded model: `python -m tfq_bench_cifar10.train --data cifar10.npz --out DIR`.

Training may be cut into sessions (`--minutes`, `--resume`). The learning rate follows a cosine
over the whole budget (`--budget-minutes` or `--steps`), so the sessions of one budget together are
one training. Compilation and start-up do not count against the budget.
"""

# ruff: noqa: T201 - a command: its output is its interface

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from tfq_bench_cifar10.checkpoint import load_checkpoint, save_checkpoint
from tfq_bench_cifar10.data import load_cifar10
from tfq_bench_cifar10.network import TRAIN_STEPS, alphas_cumprod, build_unet

__all__ = ["Progress", "main", "train"]

WARMUP_STEPS = 500
UNCOUNTED_STEPS = 20
LOG_STEPS = 200
SAVE_SECONDS = 180.0
SNR_LIMIT = 5.0  # gamma of Min-SNR weighting (arXiv:2303.09556)


@dataclass(slots=True, kw_only=True)
class Progress:
    """Where a training stands; everything but tensors that a checkpoint holds.

    Args:
        seconds: of counted training over all sessions. loss_curve: (step, mean loss) pairs.
    """

    step: int = 0
    images: int = 0
    seconds: float = 0.0
    sessions: int = 0
    loss_curve: list[tuple[int, float]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tfq_bench_cifar10.train", description=__doc__.split("\n", 1)[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as .npz of JPEG files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--budget-minutes", type=float, help="whole training, over all sessions")
    budget.add_argument("--steps", type=int, help="whole training, in steps")
    parser.add_argument("--minutes", type=float, help="end this session after so many minutes")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--ema", type=float, default=0.9995)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument(
        "--loss",
        choices=("epsilon", "min-snr"),
        default="epsilon",
        help="plain error of the noise, or weighted by min(SNR, 5) / SNR",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def train(options: argparse.Namespace) -> Progress:
    """Runs one session and leaves a checkpoint in `options.out`."""
    session_start = time.perf_counter()
    cuda = options.device.startswith("cuda")
    torch.set_float32_matmul_precision("high")
    data = load_cifar10(options.data)
    images = torch.from_numpy(data.train_images).to(options.device).permute(0, 3, 1, 2).contiguous()
    torch.manual_seed(options.seed)  # the only place where weights are initialised
    network: torch.nn.Module = build_unet(options.dropout).to(options.device)
    average = {name: value.detach().clone() for name, value in network.named_parameters()}
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=options.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=cuda
    )
    progress = Progress()
    if options.resume:
        progress = _restore(options.out, network, average, optimizer, data.digest)
    progress.sessions += 1
    progress.facts = {
        "data_sha256": data.digest,
        "seed": options.seed,
        "batch": options.batch,
        "lr": options.lr,
        "ema": options.ema,
        "dropout": options.dropout,
        "loss": options.loss,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
        "budget_minutes": options.budget_minutes,
        "budget_steps": options.steps,
    }
    generator = torch.Generator(options.device).manual_seed(
        options.seed * 1_000_003 + progress.sessions
    )
    signal = alphas_cumprod().to(options.device)
    root_signal, root_noise = signal.sqrt().float(), (1.0 - signal).sqrt().float()

    weight = _loss_weight(signal, options.loss)

    def loss_of(x: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        noisy = root_signal[t].view(-1, 1, 1, 1) * x + root_noise[t].view(-1, 1, 1, 1) * noise
        with torch.autocast(options.device.split(":")[0], torch.bfloat16, enabled=cuda):
            predicted = network(noisy, t, return_dict=False)[0]
        if weight is None:
            return F.mse_loss(predicted.float(), noise)
        return ((predicted.float() - noise).square().mean(dim=(1, 2, 3)) * weight[t]).mean()

    compiled = torch.compile(loss_of) if cuda else loss_of
    parameters = list(network.parameters())
    averages = [average[name] for name, _ in network.named_parameters()]
    total = torch.zeros((), device=options.device)
    network.train()
    counted_from: float | None = None
    before = progress.seconds
    first, saved, logged = progress.step, time.perf_counter(), progress.step
    logged_at = saved
    while True:
        if progress.step - first == UNCOUNTED_STEPS:
            if cuda:
                torch.cuda.synchronize()
            counted_from = time.perf_counter()
            print(f"compiled after {counted_from - session_start:.0f} s", flush=True)
        now = time.perf_counter()
        if counted_from is not None:
            progress.seconds = before + now - counted_from
        done = _fraction(progress, options)
        out_of_time = options.minutes is not None and now - session_start > options.minutes * 60
        if done >= 1.0 or out_of_time:
            break
        rate = _learning_rate(options.lr, progress.step, done)
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = torch.randint(
            len(images), (options.batch,), generator=generator, device=options.device
        )
        x = images[chosen].float().div_(127.5).sub_(1.0)
        flip = torch.rand((options.batch, 1, 1, 1), generator=generator, device=options.device)
        x = torch.where(flip < 0.5, x.flip(3), x)
        t = torch.randint(TRAIN_STEPS, (options.batch,), generator=generator, device=options.device)
        noise = torch.randn(x.shape, generator=generator, device=options.device)
        loss = compiled(x, t, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += loss.detach()
        progress.step += 1
        progress.images += options.batch
        decay = min(options.ema, (1 + progress.step) / (10 + progress.step))
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 1.0 - decay)
        if progress.step % LOG_STEPS == 0:
            mean = total.item() / (progress.step - logged)
            _check_finite(mean, progress.step)
            now = time.perf_counter()
            speed = (progress.step - logged) * options.batch / (now - logged_at)
            logged, logged_at = progress.step, now
            total.zero_()
            progress.loss_curve.append((progress.step, mean))
            left = progress.seconds / done * (1.0 - done) / 60 if done else math.nan
            print(
                f"step {progress.step} loss {mean:.5f} lr {rate:.2e} done {done:.1%}, "
                f"{left:.1f} minutes left, {speed:.0f} images/s",
                flush=True,
            )
        if time.perf_counter() - saved > SAVE_SECONDS:
            _store(options.out, network, average, optimizer, progress)
            saved = time.perf_counter()
    if progress.step > logged:
        mean = total.item() / (progress.step - logged)
        _check_finite(mean, progress.step)
        progress.loss_curve.append((progress.step, mean))
    _store(options.out, network, average, optimizer, progress)
    return progress


def _learning_rate(peak: float, step: int, done: float) -> float:
    """Linear warm-up over 500 steps, times a half cosine over `done`, the budget's used part."""
    return peak * min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1.0 + math.cos(math.pi * done))


def _loss_weight(signal: torch.Tensor, kind: str) -> torch.Tensor | None:
    """float32 `[1000]`, the weight of each t in the loss; None for the plain loss."""
    if kind == "epsilon":
        return None
    ratio = signal / (1.0 - signal)
    return (ratio.clamp(max=SNR_LIMIT) / ratio).float()


def _check_finite(loss: float, step: int) -> None:
    """Stops before a diverged state replaces the last good checkpoint."""
    if not math.isfinite(loss):
        raise ValueError(
            f"step {step}: expected a finite loss, found {loss}. The checkpoint of the last save "
            "is kept; resume it with a lower --lr."
        )


def _fraction(progress: Progress, options: argparse.Namespace) -> float:
    if options.steps is not None:
        return progress.step / options.steps
    return progress.seconds / (options.budget_minutes * 60)


def _store(
    folder: Path,
    network: torch.nn.Module,
    average: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Saves 52 MB: float32 weights, float16 average (as exported), bfloat16 second moment.

    The first moment is left out: it remembers ten steps and is built again as quickly.
    """
    weights = dict(network.named_parameters())
    groups = {
        "model": weights,
        "ema": {name: value.to(torch.float16) for name, value in average.items()},
        "exp_avg_sq": {
            name: optimizer.state[parameter]["exp_avg_sq"].to(torch.bfloat16)
            for name, parameter in weights.items()
        },
    }
    save_checkpoint(folder, groups, {name: getattr(progress, name) for name in Progress.__slots__})


def _restore(
    folder: Path,
    network: torch.nn.Module,
    average: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    data_digest: str,
) -> Progress:
    """Puts the checkpoint in `folder` into the three; returns where the training stands."""
    groups, state = load_checkpoint(folder)
    progress = Progress(**state)
    if progress.facts["data_sha256"] != data_digest:
        raise ValueError(
            f"{folder}: expected a checkpoint trained on this data (SHA-256 {data_digest}), found "
            f"one of {progress.facts['data_sha256']}. Give the same --data, or another --out."
        )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(groups["model"][name])
            average[name].copy_(groups["ema"][name])
            optimizer.state[parameter] = {
                "step": torch.tensor(float(progress.step), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.empty_like(parameter).copy_(groups["exp_avg_sq"][name]),
            }
    return progress


def main(argv: list[str] | None = None) -> None:
    """Entry point of `python -m tfq_bench_cifar10.train`."""
    parser = arguments()
    try:
        progress = train(parser.parse_args(argv))
    except (FileNotFoundError, ValueError) as error:
        parser.exit(2, f"{error}\n")
    print(
        f"step {progress.step}, {progress.images:,} images in {progress.seconds / 60:.1f} minutes, "
        f"loss {progress.loss_curve[-1][1] if progress.loss_curve else math.nan:.5f}"
    )


if __name__ == "__main__":
    main()
