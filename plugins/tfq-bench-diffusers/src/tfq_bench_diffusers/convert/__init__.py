"""CompVis checkpoints of latent diffusion models as folders that diffusers reads."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file

from tfq_bench import api
from tfq_bench_diffusers.convert.checkpoint import Parts, listed, read_checkpoint, sort_parts
from tfq_bench_diffusers.convert.families import FAMILIES, Family
from tfq_bench_diffusers.convert.names import decoder_state, network_state
from tfq_bench_diffusers.heads import without_heads

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FAMILIES", "Family", "convert"]

logger = logging.getLogger("tfq_bench.diffusers.convert")

WEIGHTS = "diffusion_pytorch_model.safetensors"


def convert(checkpoint: Path, family: Family, to: Path) -> None:
    """Writes the model of a checkpoint into a new folder: network, decoder, scheduler, classes.

    The moving average of the weights is written where the checkpoint has one, as these models were
    sampled. Weights are float32. Nothing is left behind when it fails.

    Raises:
        AssetError: the checkpoint cannot be read or is not of this family; names the tensors.
        UsageError: `to` is there already.
    """
    if to.exists():
        raise api.UsageError(f"{to}: expected a folder that is not there yet, found one.")
    parts = sort_parts(read_checkpoint(checkpoint), checkpoint)
    _check_schedule(parts, family, checkpoint)
    network = network_state(parts.network, family.network, checkpoint)
    decoder = decoder_state(parts.decoder, family.decoder, checkpoint)
    _check_weights(network, family.network, checkpoint)
    _check_weights(decoder, family.decoder, checkpoint)
    scaling = {"scaling_factor": _scale(parts, family, checkpoint)}
    decoder_name = "vqvae" if family.decoder["_class_name"] == "VQModel" else "vae"

    to.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.parent))
    try:
        _write_part(building / "unet", family.network, network)
        _write_part(building / decoder_name, {**family.decoder, **scaling}, decoder)
        _write_json(building / "scheduler" / "scheduler_config.json", family.scheduler)
        index = {
            "unet": ["diffusers", family.network["_class_name"]],
            decoder_name: ["diffusers", family.decoder["_class_name"]],
            "scheduler": ["diffusers", "DDIMScheduler"],
        }
        classes = _classes(parts, family, checkpoint)
        if classes is not None:
            config = {"_class_name": "ClassEmbedder", "unconditional": family.classes - 1}
            _write_part(building / "class_embedder", config, {"embedding.weight": classes})
            index["class_embedder"] = ["tfq_bench_diffusers", "ClassEmbedder"]
        _write_json(building / "model_index.json", {"_class_name": "DiffusionPipeline", **index})
        building.chmod(0o755)
        building.rename(to)
    except BaseException:
        shutil.rmtree(building)
        raise
    kind = "moving average of the weights" if parts.averaged else "weights (without an average)"
    logger.info("%s: wrote the %s of %s", to, kind, checkpoint)


def _check_schedule(parts: Parts, family: Family, where: Path) -> None:
    """AssetError when the checkpoint was trained on another noise schedule."""
    if parts.betas is None:
        return
    expected = np.linspace(family.beta_start**0.5, family.beta_end**0.5, 1000) ** 2
    found = parts.betas.double().numpy()
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-4, atol=0):
        raise api.AssetError(
            f"{where}: expected 1000 betas from {family.beta_start:g} to {family.beta_end:g}, "
            f"found {found.size} from {found[0]:.6g} to {found[-1]:.6g}. Is it another family?"
        )


def _check_weights(state: Mapping[str, Tensor], config: Mapping[str, Any], where: Path) -> None:
    """AssetError unless the tensors are exactly those of the diffusers module."""
    import diffusers

    kind = config["_class_name"]
    with torch.device("meta"):
        module = getattr(diffusers, kind).from_config({**config, **without_heads(config)})
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    missing, surplus = expected.keys() - state.keys(), state.keys() - expected.keys()
    odd = [
        f"{name} {tuple(state[name].shape)}, not {expected[name]}"
        for name in sorted(expected.keys() & state.keys())
        if tuple(state[name].shape) != expected[name]
    ]
    faults = [f"no {listed(missing)}"] if missing else []
    faults += [f"{listed(surplus)} besides"] if surplus else []
    faults += [f"other shapes: {listed(odd)}"] if odd else []
    if faults:
        raise api.AssetError(
            f"{where}: expected the {len(expected)} tensors of this family's {kind}; after "
            f"renaming, found {'; '.join(faults)}."
        )


def _scale(parts: Parts, family: Family, where: Path) -> float:
    if family.scaled and parts.scale is None:
        raise api.AssetError(
            f"{where}: expected 'scale_factor', the deviation that latents were divided by; found "
            "none. Without it the images cannot be decoded."
        )
    return 1.0 if parts.scale is None else parts.scale


def _classes(parts: Parts, family: Family, where: Path) -> Tensor | None:
    found = 0 if parts.classes is None else parts.classes.shape[0]
    if found != family.classes:
        raise api.AssetError(
            f"{where}: expected {family.classes} classes in 'cond_stage_model.embedding.weight', "
            f"found {found}."
        )
    return parts.classes


def _write_part(folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    _write_json(folder / "config.json", config)
    tensors = {name: value.float().contiguous() for name, value in state.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(dict(content), indent=2) + "\n", "utf-8")
