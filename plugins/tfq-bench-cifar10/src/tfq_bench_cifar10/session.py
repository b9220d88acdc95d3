"""Where a training stands, stored so exactly that a resumed one goes on as if never stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tfq_bench_cifar10.checkpoint import load_checkpoint, save_checkpoint

__all__ = ["Progress", "State"]


@dataclass(slots=True, kw_only=True)
class Progress:
    """Where a training stands; everything but tensors that a checkpoint holds.

    Args:
        seconds: of counted training over all sessions. loss_curve: (step, mean loss) pairs.
        facts: options and machine, as they enter the provenance.
    """

    step: int = 0
    images: int = 0
    seconds: float = 0.0
    sessions: int = 0
    loss_curve: list[tuple[int, float]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The tensors of a training, on one device.

    Args:
        average: moving average of the parameters, float32 by name.
        generator: draws images, timesteps, noise and dropped labels.
    """

    module: nn.Module
    average: dict[str, torch.Tensor]
    optimizer: torch.optim.Optimizer
    generator: torch.Generator

    def store(self, folder: Path, progress: Progress) -> None:
        """Saves everything that a step depends on: 16 bytes a parameter, 120 MB."""
        parameters = dict(self.module.named_parameters())
        groups: dict[str, Mapping[str, torch.Tensor]] = {
            "model": parameters,
            "ema": self.average,
            "exp_avg": {n: self.optimizer.state[p]["exp_avg"] for n, p in parameters.items()},
            "exp_avg_sq": {n: self.optimizer.state[p]["exp_avg_sq"] for n, p in parameters.items()},
            # The second is what dropout inside the network draws from.
            "random": {
                "batches": self.generator.get_state(),
                "dropout": self._dropout().get_state(),
            },
        }
        fields = {name: getattr(progress, name) for name in Progress.__slots__}
        save_checkpoint(folder, groups, fields)

    def restore(self, folder: Path, facts: dict[str, Any]) -> Progress:
        """Takes over the checkpoint in `folder`; where its training stands.

        Args:
            facts: of the session that goes on; network and data must be those of the checkpoint.

        Raises:
            FileNotFoundError, ValueError: as for `load_checkpoint`, or one of another training.
        """
        groups, fields = load_checkpoint(folder)
        progress = Progress(**fields)
        for name, what in (("network", "--network"), ("data_sha256", "--data")):
            found = progress.facts.get(name)
            if found != facts[name]:
                raise ValueError(
                    f"{folder}: expected a checkpoint of the {name} {facts[name]}, found one of "
                    f"{found}. Give the same {what}, or another --out."
                )
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                parameter.copy_(groups["model"][name])
                self.average[name].copy_(groups["ema"][name])
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(progress.step), device=parameter.device),
                    "exp_avg": torch.empty_like(parameter).copy_(groups["exp_avg"][name]),
                    "exp_avg_sq": torch.empty_like(parameter).copy_(groups["exp_avg_sq"][name]),
                }
        self.generator.set_state(groups["random"]["batches"])
        self._dropout().set_state(groups["random"]["dropout"])
        return progress

    def _dropout(self) -> torch.Generator:
        """The device's global generator."""
        if self.generator.device.type == "cuda":
            torch.cuda.init()
            return torch.cuda.default_generators[torch.cuda.current_device()]
        return torch.default_generator
