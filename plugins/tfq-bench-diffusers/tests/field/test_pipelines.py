"""Images are those of diffusers' own pipelines, also for configurations as old versions wrote them.

The right pixels come from `DiffusionPipeline.from_pretrained` of the same folder, with the same
noise. Both compute in float32, so a pixel may round to its neighbour.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from tfq_bench.quant import guided_prediction
from tfq_bench_diffusers.decode import to_pixels
from tfq_bench_diffusers.model import DiffusersModel

LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
PLMS = {"skip_prk_steps": True}
PROMPT = "a b"


def with_scheduler(folder: Path, kind: str, config: dict) -> None:
    """Gives the folder a scheduler that states this and nothing else."""
    stated = {"_class_name": kind, "_diffusers_version": "0.2.0", **config}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(stated))
    path = folder / "model_index.json"
    index = {**json.loads(path.read_text()), "scheduler": ["diffusers", kind]}
    if index["_class_name"] == "DDPMPipeline":  # which steps with no other scheduler's arguments
        index["_class_name"] = kind.replace("Scheduler", "Pipeline")
    path.write_text(json.dumps(index))


@torch.no_grad()
def ours(model: DiffusersModel, sampler: str, steps: int) -> np.ndarray:
    """uint8 `[2, H, W, 3]`, with all noise drawn in turn from one generator."""
    network = model.load(device="cpu", dtype=torch.float32)
    drawn = torch.Generator().manual_seed(0)
    condition = model.conditions([0, 1], device="cpu")
    walk = model.sampler(sampler, steps)
    shape = (2, *model.latent_shape)
    state = walk.initial(torch.randn(shape, generator=drawn))
    for index, t in enumerate(walk.timesteps):
        x = walk.network_input(state, index)
        prediction = guided_prediction(model, network, x, torch.full((2,), t), condition)
        noise = torch.randn(shape, generator=drawn) if walk.stochastic and t > 0 else None
        state = walk.step(state, prediction, index, noise)
    return model.decode(walk.final(state)).numpy()


def theirs(folder: Path, family: str, steps: int, scale: float) -> np.ndarray:
    """uint8 `[2, H, W, 3]` of the folder's pipeline."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    more = {"num_inference_steps": steps, "generator": generator, "output_type": "np"}
    if family in ("ddpm", "ldm"):
        images = pipeline(batch_size=2, **more).images
    elif family == "dit":
        images = pipeline(class_labels=[0, 1], guidance_scale=scale, **more).images
    else:
        if family == "pixart":
            more |= {"use_resolution_binning": False, "clean_caption": False}
            more |= {"height": 16, "width": 16}
        images = pipeline(prompt=[PROMPT] * 2, guidance_scale=scale, **more).images
    return (images * 255).round().astype(np.uint8)


CASES = [
    # Configurations as they are saved today.
    ("ddpm", "DDPMScheduler", "ddpm", LINEAR),
    ("ldm", "DDIMScheduler", "ddim", {**SCALED, "clip_sample": False}),
    ("sd", "PNDMScheduler", "pndm", {**SCALED, **PLMS, "steps_offset": 1}),
    ("sdxl", "EulerDiscreteScheduler", "euler", {**SCALED, "timestep_spacing": "leading"}),
    ("dit", "DDIMScheduler", "ddim", {**LINEAR, "clip_sample": False}),
    ("pixart", "DPMSolverMultistepScheduler", "dpm-solver++", LINEAR),
    # Old ones: what is missing has the default of the class, or what the pipeline makes of it.
    ("ddpm", "DDPMScheduler", "ddpm", {}),
    ("ddpm", "DDIMScheduler", "ddim", {}),
    ("ddpm", "PNDMScheduler", "pndm", PLMS),
    ("ddpm", "DDPMScheduler", "ddpm", {"variance_type": "fixed_large", "steps_offset": 1}),
    ("ldm", "DDIMScheduler", "ddim", {}),
    ("ldm", "EulerDiscreteScheduler", "euler", {}),
    ("ldm", "DPMSolverMultistepScheduler", "dpm-solver++", {"prediction_type": "v_prediction"}),
    ("sd", "PNDMScheduler", "pndm", {**SCALED, **PLMS}),
    ("sd", "DDIMScheduler", "ddim", SCALED),
    ("sd", "DDIMScheduler", "ddim", {**SCALED, "timestep_spacing": "trailing"}),
    ("sd", "DPMSolverMultistepScheduler", "dpm-solver++", SCALED),
    ("sd", "EulerDiscreteScheduler", "euler", {**SCALED, "prediction_type": "v_prediction"}),
    ("sd", "DDPMScheduler", "ddpm", SCALED),
    ("sdxl", "EulerDiscreteScheduler", "euler", SCALED),
    ("sdxl", "DDIMScheduler", "ddim", SCALED),
    ("dit", "DDIMScheduler", "ddim", {}),
    ("dit", "DPMSolverMultistepScheduler", "dpm-solver++", {"lower_order_final": False}),
    ("pixart", "DDIMScheduler", "ddim", {"timestep_spacing": "linspace"}),
    ("pixart", "DPMSolverMultistepScheduler", "dpm-solver++", {"final_sigmas_type": "sigma_min"}),
]


@pytest.mark.parametrize(("family", "kind", "sampler", "config"), CASES)
def test_images_are_those_of_diffusers_pipeline(
    make_folder, tmp_path, family, kind, sampler, config
):
    """The same pixels, up to neighbours."""
    folder = shutil.copytree(make_folder(family), tmp_path / family)
    if family == "ldm":  # diffusers' pipeline takes it from the file or its default
        path = folder / "vqvae" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "scaling_factor": 0.4}))
    with_scheduler(folder, kind, config)
    (tmp_path / "prompts.txt").write_text(PROMPT)
    # The pipeline's class without a condition would look up class 1000, which is not there.
    scale = 3.0 if family in ("sd", "sdxl", "pixart") else 1.0
    model = DiffusersModel(
        source=str(folder), guidance=scale, prompts=str(tmp_path / "prompts.txt")
    )
    assert len(model.digest) == 64  # all of it is understood
    expected, found = theirs(folder, family, 6, scale), ours(model, sampler, 6)
    assert expected.shape == found.shape
    away = np.abs(expected.astype(int) - found.astype(int))
    assert away.max() <= 1, f"{away.max()} levels off"
    assert (away > 0).mean() < 0.1
    assert expected.std() > 1  # an image, not one colour


def test_pixels_are_rounded_as_diffusers_rounds_them():
    """Over all values that may come out of a decoder, the borders included."""
    values = torch.linspace(-1.5, 1.5, 3 * 64 * 64).reshape(1, 3, 64, 64)
    processor = diffusers.image_processor.VaeImageProcessor()
    expected = processor.postprocess(values, output_type="np")
    expected = (expected * 255).round().astype(np.uint8)
    assert np.array_equal(expected, to_pixels(values).numpy())


def test_statistics_of_latents_are_those_of_sdxls_pipeline(make_folder, tmp_path):
    """`latents_mean` and `latents_std`, which that pipeline alone reads."""
    folder = shutil.copytree(make_folder("sdxl"), tmp_path / "sdxl")
    path = folder / "vae" / "config.json"
    told = {"latents_mean": [0.1, -0.2, 0.3, 0.4], "latents_std": [0.5, 1.5, 2.0, 0.7]}
    path.write_text(json.dumps({**json.loads(path.read_text()), **told}))
    with_scheduler(folder, "EulerDiscreteScheduler", SCALED)
    (tmp_path / "prompts.txt").write_text(PROMPT)
    model = DiffusersModel(source=str(folder), guidance=3.0, prompts=str(tmp_path / "prompts.txt"))
    found, expected = ours(model, "euler", 3), theirs(folder, "sdxl", 3, 3.0)
    assert np.abs(expected.astype(int) - found.astype(int)).max() <= 1
