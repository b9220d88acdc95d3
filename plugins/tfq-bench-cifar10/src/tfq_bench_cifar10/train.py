"""Trains an embedded model: `python -m tfq_bench_cifar10.train --data cifar10.npz --out DIR`.

Training may be cut into sessions (`--minutes`, `--resume`). The learning rate follows a cosine
over the whole budget (`--budget-minutes` or `--steps`), so the sessions of one budget together are
one training: on the CPU bit by bit the same as an uncut one of `--steps`. Compilation and start-up
do not count against the budget.
"""

# ruff: noqa: T201 - a command: its output is its interface

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch

from tfq_bench_cifar10.data import Cifar10, load_cifar10
from tfq_bench_cifar10.network import NETWORKS, Network, build_trainable
from tfq_bench_cifar10.objective import draw, make_loss
from tfq_bench_cifar10.session import Progress, State

__all__ = ["main", "train"]

WARMUP_STEPS = 500
UNCOUNTED_STEPS = 20
LOG_STEPS = 200
SAVE_SECONDS = 180.0


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tfq_bench_cifar10.train", description=__doc__.split("\n", 1)[0]
    )
    parser.add_argument("--network", choices=sorted(NETWORKS), default="unet")
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
        "--label-dropout",
        type=float,
        default=0.1,
        help="share of images whose class is not told, which guidance needs",
    )
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
    labels = torch.from_numpy(data.train_labels).to(options.device, torch.int64)
    network = NETWORKS[options.network]
    state = _fresh(network, options)
    progress, facts = Progress(), _facts(options, data)
    if options.resume:
        progress = state.restore(options.out, facts)
    progress.sessions += 1
    progress.facts = facts
    loss_of = make_loss(network, state.module, kind=options.loss, device=options.device)
    compiled = torch.compile(loss_of) if cuda else loss_of
    parameters = list(state.module.parameters())
    averages = [state.average[name] for name, _ in state.module.named_parameters()]
    total = torch.zeros((), device=options.device)
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
        if done >= 1.0 or (out_of_time and progress.step > first):
            break
        rate = _learning_rate(options.lr, progress.step, done)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        batch = draw(
            images,
            labels,
            options.batch,
            label_dropout=options.label_dropout,
            generator=state.generator,
        )
        loss = compiled(*batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
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
            state.store(options.out, progress)
            saved = time.perf_counter()
    if progress.step > logged:
        mean = total.item() / (progress.step - logged)
        _check_finite(mean, progress.step)
        progress.loss_curve.append((progress.step, mean))
    state.store(options.out, progress)
    return progress


def _fresh(network: Network, options: argparse.Namespace) -> State:
    """The state before the first step; all of it follows from the seed."""
    torch.manual_seed(options.seed)  # weights are initialised from the global generator
    module = build_trainable(network, options.dropout).to(options.device).train()
    optimizer = torch.optim.AdamW(
        module.parameters(),
        lr=options.lr,
        betas=(0.9, 0.99),
        weight_decay=0.01,
        fused=options.device.startswith("cuda"),
    )
    return State(
        module=module,
        average={name: value.detach().clone() for name, value in module.named_parameters()},
        optimizer=optimizer,
        generator=torch.Generator(options.device).manual_seed(options.seed * 1_000_003 + 1),
    )


def _facts(options: argparse.Namespace, data: Cifar10) -> dict[str, Any]:
    """What the provenance says of this session."""
    cuda = options.device.startswith("cuda")
    return {
        "network": options.network,
        "data_sha256": data.digest,
        "seed": options.seed,
        "batch": options.batch,
        "lr": options.lr,
        "ema": options.ema,
        "dropout": options.dropout,
        "label_dropout": options.label_dropout if NETWORKS[options.network].argument else None,
        "loss": options.loss,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
        "budget_minutes": options.budget_minutes,
        "budget_steps": options.steps,
    }


def _learning_rate(peak: float, step: int, done: float) -> float:
    """Linear warm-up over 500 steps, times a half cosine over `done`, the budget's used part."""
    return peak * min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1.0 + math.cos(math.pi * done))


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
