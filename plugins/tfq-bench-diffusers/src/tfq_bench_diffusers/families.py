"""The models that have a name here: where they come from, and how the papers sample them.

Imports no torch: providers are made from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

__all__ = ["PRESETS", "Preset", "architecture"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One published model.

    Args:
        source: repository on the Hugging Face hub.
        licence: of the weights, as its model card states it.
        architecture: name of the packaged configuration, for random weights.
        parameters: of the denoising network.
        gmac: of one network call for one image at the native size, in 1e9.
        sampler: the default; see `tfq_bench_diffusers.samplers`.
        factor: pixels per latent position along one side; 1 without a decoder.
        guidance: scale of classifier-free guidance, 1 for none.
        tokens: length of the prompt's embedding, 0 without text.
        revision: commit on the hub; empty for its main branch, while nobody has pinned it.
        size: bytes of what is fetched, to one per cent: as the hub shows its files, or by the
            parameters of the components, where all are in float32. None when unknown.
        sha256: of the network's weight file; empty while nobody has pinned it.
    """

    source: str
    licence: str
    summary: str
    architecture: str
    parameters: int
    gmac: float
    sampler: str = "ddim"
    factor: int = 1
    guidance: float = 1.0
    tokens: int = 0
    revision: str = ""
    size: int | None = None
    sha256: str = ""


def _ddpm(data: str) -> Preset:
    return Preset(
        source=f"google/ddpm-{data}-256",
        licence="Apache-2.0",
        summary=f"Unconditional DDPM in pixels, {data} 256x256",
        architecture="ddpm-256",
        parameters=113_673_219,
        gmac=248.7,
        size=455_000_000,
    )


PRESETS: Mapping[str, Preset] = {
    "ddpm-cifar10": Preset(
        source="google/ddpm-cifar10-32",
        licence="Apache-2.0",
        summary="Unconditional DDPM in pixels, CIFAR-10 32x32",
        architecture="ddpm-cifar10",
        parameters=35_746_307,
        gmac=6.1,
        sampler="ddim-quadratic",
        size=143_000_000,
    ),
    "ddpm-celebahq": _ddpm("celebahq"),
    "ddpm-church": _ddpm("church"),
    "ddpm-bedroom": _ddpm("bedroom"),
    "ldm-celebahq": Preset(
        source="CompVis/ldm-celebahq-256",
        licence="Apache-2.0",
        summary="Unconditional latent diffusion, CelebA-HQ 256x256",
        architecture="ldm-4",
        parameters=274_056_163,
        gmac=96.1,
        factor=4,
        revision="f02a06614b65f926d42d57928a0e328313d241a9",
        size=1_320_000_000,
    ),
    "dit-xl-2-256": Preset(
        source="facebook/DiT-XL-2-256",
        licence="CC-BY-NC-4.0",
        summary="Class-conditional diffusion transformer, ImageNet 256x256",
        architecture="dit-xl-2",
        parameters=749_826_464,
        gmac=114.4,
        factor=8,
        guidance=4.0,
        revision="eab87f77abd5aef071a632f08807fbaab0b704d0",
        size=3_330_000_000,
    ),
    "sd-v1-4": Preset(
        source="CompVis/stable-diffusion-v1-4",
        licence="CreativeML Open RAIL-M",
        summary="Stable Diffusion v1-4, 512x512",
        architecture="sd-v1",
        parameters=859_520_964,
        gmac=338.6,
        sampler="pndm",
        factor=8,
        guidance=7.5,
        tokens=77,
        size=4_270_000_000,
    ),
    "sd-v1-5": Preset(
        source="stable-diffusion-v1-5/stable-diffusion-v1-5",
        licence="CreativeML Open RAIL-M",
        summary="Stable Diffusion v1-5, 512x512",
        architecture="sd-v1",
        parameters=859_520_964,
        gmac=338.6,
        sampler="pndm",
        factor=8,
        guidance=7.5,
        tokens=77,
        size=4_270_000_000,
    ),
    "sd-v2": Preset(
        source="stabilityai/stable-diffusion-2-base",
        licence="CreativeML Open RAIL++-M",
        summary="Stable Diffusion v2 base, 512x512",
        architecture="sd-v2",
        parameters=865_910_724,
        gmac=339.1,
        sampler="pndm",
        factor=8,
        guidance=7.5,
        tokens=77,
        size=5_160_000_000,
    ),
    "sdxl": Preset(
        source="stabilityai/stable-diffusion-xl-base-1.0",
        licence="CreativeML Open RAIL++-M",
        summary="Stable Diffusion XL base, 1024x1024, two text encoders",
        architecture="sdxl",
        parameters=2_567_463_684,
        gmac=2988.7,
        sampler="euler",
        factor=8,
        guidance=5.0,
        tokens=77,
        size=13_900_000_000,
    ),
    "pixart-alpha": Preset(
        source="PixArt-alpha/PixArt-XL-2-512x512",
        licence="CreativeML Open RAIL++-M",
        summary="PixArt-alpha, text-conditional transformer, 512x512",
        architecture="pixart-alpha",
        parameters=610_856_096,
        gmac=542.4,
        sampler="dpm-solver++",
        factor=8,
        guidance=4.5,
        tokens=120,
        size=21_800_000_000,
    ),
    "pixart-sigma": Preset(
        source="PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        licence="CreativeML Open RAIL++-M",
        summary="PixArt-Sigma, text-conditional transformer, 1024x1024",
        architecture="pixart-sigma",
        parameters=610_856_096,
        gmac=2139.9,
        sampler="dpm-solver++",
        factor=8,
        guidance=4.5,
        tokens=300,
        size=21_800_000_000,
    ),
}


def architecture(name: str) -> dict[str, dict[str, Any]]:
    """The packaged configuration: `{"network": {...}, "scheduler": {...}}`, as diffusers reads."""
    text = (
        resources.files("tfq_bench_diffusers")
        .joinpath("architectures", f"{name}.json")
        .read_text("utf-8")
    )
    found: dict[str, dict[str, Any]] = json.loads(text)
    return found
