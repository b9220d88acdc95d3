"""What this distribution offers to the host. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

from tfq_bench import api
from tfq_bench_diffusers.families import PRESETS

__all__: list[str] = []

SAMPLERS = (
    "ddim",
    "ddim-quadratic",
    "ddim-compvis",
    "ddpm",
    "pndm",
    "dpm-solver++",
    "euler",
)


@api.hookimpl
def tfq_models() -> Iterator[api.ModelProvider]:
    """Any model that diffusers can load, and the published ones by name."""
    yield api.ModelProvider(
        name="diffusers",
        summary="Any diffusion model in diffusers' format: hub id or local folder",
        factory="tfq_bench_diffusers.model:DiffusersModel",
        options=_options("", "", 1.0),
        assets="tfq_bench_diffusers.hub:source_assets",
        samplers=SAMPLERS,
        gmac=100.0,
    )
    for name, preset in PRESETS.items():
        yield api.ModelProvider(
            name=name,
            summary=preset.summary,
            factory=f"tfq_bench_diffusers.presets:{name.replace('-', '_')}",
            options=_options(preset.source, preset.revision, preset.guidance),
            assets="tfq_bench_diffusers.hub:named_assets",
            samplers=(preset.sampler, *(one for one in SAMPLERS if one != preset.sampler)),
            gmac=preset.gmac,
        )


def _options(source: str, revision: str, guidance: float) -> tuple[api.Option, ...]:
    return (
        api.Option(
            name="source",
            kind="source",
            default=source,
            help="Hub id (from the local cache, never downloaded in a run) or local folder; a "
            "relative one starts at the suite's folder.",
        ),
        api.Option(
            name="revision",
            kind="str",
            default=revision,
            help="Commit or tag on the hub, empty for its main branch.",
        ),
        api.Option(
            name="weights",
            kind="str",
            default="pretrained",
            choices=("pretrained", "random"),
            help="`random` builds the architecture without weights, for speed and memory.",
        ),
        api.Option(
            name="dtype",
            kind="str",
            default="float32",
            choices=("float32", "bfloat16", "float16"),
            help="What the full-precision network computes in.",
        ),
        api.Option(
            name="guidance",
            kind="float",
            default=guidance,
            minimum=1.0,
            help="Scale of classifier-free guidance; 1 is none.",
        ),
        api.Option(
            name="resolution",
            kind="int",
            default=0,
            minimum=0,
            help="Pixels along a side; 0 is the model's own.",
        ),
        api.Option(
            name="prompts",
            kind="path",
            default="",
            help="Text file with a prompt a line, for image 0, 1, ...; the packaged ones if empty.",
        ),
    )
