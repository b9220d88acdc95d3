"""The tensors of a CompVis checkpoint, sorted into the parts of a model."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tfq_bench import api

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Parts", "listed", "read_checkpoint", "sort_parts"]

NETWORK = "model.diffusion_model."
DECODER = "first_stage_model."
AVERAGE = "model_ema."
CLASSES = "cond_stage_model.embedding.weight"
COUNTERS = ("model_ema.decay", "model_ema.num_updates")
LOSS = "first_stage_model.loss."
"""The decoder's own training: discriminator and perceptual network."""
DERIVED = frozenset(
    (
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "lvlb_weights",
        "logvar",
    )
)
"""Tables that follow from beta, and weights of the training loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The tensors of a checkpoint, each in one part, by their names behind the part's prefix.

    Args:
        network: the moving average of the weights where the checkpoint has one.
        averaged: whether it has.
        classes: `[classes, width]`, None without.
        scale: what latents are multiplied with; None when the checkpoint does not say.
        betas: `[T]`, None when the checkpoint does not hold them.
    """

    network: dict[str, Tensor]
    averaged: bool
    decoder: dict[str, Tensor]
    classes: Tensor | None
    scale: float | None
    betas: Tensor | None


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors or torch file, on the CPU.

    Raises:
        AssetError: there is no such file, or it holds objects other than tensors: such files can
            run code when read, so they are not.
    """
    if not path.is_file():
        raise api.AssetError(f"{path}: expected a checkpoint (.safetensors, .ckpt), found no file.")
    if path.suffix == ".safetensors":
        try:
            tensors: dict[str, Tensor] = load_file(path)
        except (OSError, SafetensorError) as error:
            raise api.AssetError(
                f"{path}: expected a safetensors file, found another: {error}"
            ) from None
        return tensors
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise api.AssetError(
            f"{path}: expected a file of tensors, found one that holds other Python objects too "
            f"({_reason(error)}). Reading it can run code, so it is not read. Where you trust it, "
            "save its tensors alone: `torch.save({'state_dict': torch.load(F, weights_only=False)"
            "['state_dict']}, G)`."
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise api.AssetError(f"{path}: expected a torch file, found another: {error}") from None
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not (isinstance(found, dict) and found):
        raise api.AssetError(
            f"{path}: expected a dictionary of tensors or one under 'state_dict', found "
            f"{type(found).__name__}."
        )
    odd = [name for name, value in found.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise api.AssetError(
            f"{path}: expected tensors, found other values under {listed(odd)}. Where the weights "
            "lie deeper, save their dictionary alone."
        )
    return found


def sort_parts(tensors: dict[str, Tensor], where: Path) -> Parts:
    """Every tensor in one part; those of training alone are left out.

    Args:
        where: the checkpoint, for messages.

    Raises:
        AssetError: tensors that are not known, or weights without their moving average.
    """
    left = dict(tensors)
    network = _taken(left, NETWORK)
    averages = {name: left.pop(name) for name in list(left) if name.startswith(AVERAGE)}
    for name in COUNTERS:
        averages.pop(name, None)
    averaged = bool(averages)
    if averaged:
        network = _averaged(network, averages, where)
    for name in [name for name in left if name.startswith(LOSS) or name in DERIVED]:
        del left[name]
    decoder = _taken(left, DECODER)
    classes, betas = left.pop(CLASSES, None), left.pop("betas", None)
    scale = left.pop("scale_factor", None)
    unknown = [*left, *averages]
    if unknown:
        raise api.AssetError(
            f"{where}: expected a latent diffusion model of CompVis, found tensors that are not "
            f"known: {listed(unknown)}."
        )
    if not network or not decoder:
        raise api.AssetError(
            f"{where}: expected tensors under '{NETWORK}' and '{DECODER}', found {len(network)} "
            f"and {len(decoder)} of them."
        )
    return Parts(
        network=network,
        averaged=averaged,
        decoder=decoder,
        classes=classes,
        scale=None if scale is None else float(scale),
        betas=betas,
    )


def listed(names: Iterable[str], shown: int = 8) -> str:
    """The first names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - shown} more" if len(ordered) > shown else ""
    return ", ".join(f"'{name}'" for name in ordered[:shown]) + more


def _taken(left: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    names = [name for name in left if name.startswith(prefix)]
    return {name.removeprefix(prefix): left.pop(name) for name in names}


def _averaged(
    network: dict[str, Tensor], averages: dict[str, Tensor], where: Path
) -> dict[str, Tensor]:
    """The averages under the names of their weights; they are taken out of `averages`.

    An average has the name of its weight without the dots.
    """
    found, absent = {}, []
    for name in network:
        flat = AVERAGE + f"diffusion_model.{name}".replace(".", "")
        if flat in averages:
            found[name] = averages.pop(flat)
        else:
            absent.append(flat)
    if absent:
        raise api.AssetError(
            f"{where}: expected a moving average of every weight, found none of {listed(absent)}."
        )
    return found


def _reason(error: Exception) -> str:
    """The line of torch's message that names the object."""
    lines = [line.strip() for line in str(error).splitlines() if "GLOBAL" in line]
    return lines[0] if lines else str(error).partition("\n")[0]
