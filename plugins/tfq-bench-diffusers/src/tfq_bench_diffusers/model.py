"""A diffusion model in diffusers' format, as the host sees it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tfq_bench import api
from tfq_bench_diffusers.components import (
    channel_count,
    check_decoder,
    check_network,
    network_kind,
)
from tfq_bench_diffusers.conditioning import (
    Conditioning,
    class_prompts,
    conditioning,
    read_prompts,
)
from tfq_bench_diffusers.decode import Decoder, to_pixels
from tfq_bench_diffusers.families import PRESETS, architecture
from tfq_bench_diffusers.folders import (
    UNNAMED,
    Folder,
    find_folder,
    local_folder,
    weights_fault,
)
from tfq_bench_diffusers.loading import check_weights, load_network, random_network
from tfq_bench_diffusers.networks import forward_arguments
from tfq_bench_diffusers.pipelines import pipeline_size
from tfq_bench_diffusers.samplers import ignored_keys, make_sampler
from tfq_bench_diffusers.text import check_text
from tfq_bench_diffusers.topology import diffusers_topology

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["DiffusersModel"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOKENS = 77


class DiffusersModel:
    """Any model whose denoising network is one of `networks.NETWORKS`.

    Args:
        preset: name of a published model; gives defaults, and the architecture of random weights.
        source: hub id or local folder. revision: commit or tag on the hub.
        weights: `pretrained`, or `random` for the architecture alone. A random model of a folder
            has the folder's configuration.
        dtype: what the network computes in.
        guidance: scale of classifier-free guidance, 1 for none.
        resolution: pixels along a side, 0 for the model's own.
        prompts: path of a text file, empty for the packaged prompts.
    """

    def __init__(
        self,
        *,
        preset: str = "",
        source: str = "",
        revision: str = "",
        weights: str = "pretrained",
        dtype: str = "float32",
        guidance: float = 1.0,
        resolution: int = 0,
        prompts: str = "",
    ) -> None:
        self._preset = PRESETS.get(preset)
        self._name = preset or UNNAMED
        self._source, self._revision = source, revision
        self._random = weights == "random"
        self.dtype = DTYPES[dtype]
        self._scale = guidance
        self._asked = resolution
        self._prompts = prompts
        self._guidance: dict[str, api.Guidance | None] = {}

    @cached_property
    def _folder(self) -> Folder | None:
        """The model's folder; None for the packaged architecture."""
        local = self._source and local_folder(self._source) is not None
        if self._random and self._preset is not None and not local:
            return None
        return find_folder(self._source, self._revision, name=self._name)

    @cached_property
    def _config(self) -> dict[str, Any]:
        """The network's configuration, with its class under `_class_name`."""
        if self._folder is None:
            assert self._preset is not None
            return architecture(self._preset.architecture)["network"]
        pipeline, folder = self._folder.pipeline, self._folder.network()
        config, where = self._folder.config(folder), str(folder / "config.json")
        kind = network_kind(config, where)
        check_network(config, kind, where)
        return {**config, "_class_name": kind, **pipeline_size(pipeline, config)}

    @cached_property
    def _scheduler(self) -> dict[str, Any]:
        if self._folder is None:
            assert self._preset is not None
            return architecture(self._preset.architecture)["scheduler"]
        return self._folder.scheduler()

    @property
    def _kind(self) -> str:
        return str(self._config["_class_name"])

    @cached_property
    def _decoder_folder(self) -> Path | None:
        return None if self._folder is None else Decoder.find(self._folder)

    @cached_property
    def _decoder_config(self) -> dict[str, Any]:
        folder = self._decoder_folder
        assert folder is not None
        assert self._folder is not None
        config = self._folder.config(folder)
        check_decoder(
            config,
            str(folder / "config.json"),
            channels=channel_count(self._kind, self._config),
            pipeline=self._folder.pipeline,
        )
        return config

    @cached_property
    def _factor(self) -> int:
        if self._decoder_folder is not None:
            return Decoder.factor(self._decoder_config)
        return 1 if self._preset is None else self._preset.factor

    @cached_property
    def latent_shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of the state."""
        native = self._config.get("sample_size")
        if not self._asked and not isinstance(native, int):
            raise api.SuiteError(
                f"model '{self._name}': its configuration states no size of one number (found "
                f"{native!r}); set option 'resolution'."
            )
        if not self._asked and (native is True or native is False or native < 1):
            raise api.SuiteError(
                f"model '{self._name}': its configuration states sample_size = {native!r}; "
                "expected a whole number above 0."
            )
        side = self._asked // self._factor if self._asked else native
        if self._asked % self._factor:
            raise api.SuiteError(
                f"model '{self._name}': expected a resolution that {self._factor} divides, found "
                f"{self._asked}."
            )
        return channel_count(self._kind, self._config), side, side

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that is read: configurations, weights, tokenizers, prompts.

        Raises:
            AssetError, SuiteError: something in it is missing, damaged or not understood.
        """
        self._understand()
        content: dict[str, Any] = {"random": self._random, "network": self._config}
        if self._folder is None:
            content["scheduler"] = self._scheduler
        else:
            content["files"] = self._files
        if self._speaks:
            content["prompts"] = read_prompts(self._prompts)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @cached_property
    def _files(self) -> str:
        assert self._folder is not None
        return self._folder.digest(random=self._random)

    def _check_unchanged(self) -> None:
        """AssetError when files are others than those that the digest was made of.

        Decoder and text encoders are loaded long after it, when they are first needed.
        """
        if self._folder is not None and self._folder.digest(random=self._random) != self._files:
            raise api.AssetError(
                f"{self._folder.path}: its files were changed while they were in use, so that "
                "nobody knows what is sampled. Let them be while a run goes on, and repeat it."
            )

    def _understand(self) -> None:
        """Nothing, when all that will be loaded is there and understood; loads nothing."""
        channels = self.latent_shape[0]
        if self._folder is None:
            return
        if not self._random:
            self._folder.check_complete()
            check_weights(self._folder.network(), self._kind, self._config)
        decoder = self._decoder_folder
        if decoder is None and not self._random and channels not in (1, 3):
            raise api.SuiteError(
                f"model '{self._name}': {self._folder.path} has no autoencoder, and its network "
                f"has {channels} channels; expected 1 or 3 colours, or a folder vae."
            )
        if decoder is not None and not (self._random and weights_fault(decoder)):
            check_weights(decoder, str(self._decoder_config["_class_name"]), self._decoder_config)
        if self._speaks:
            check_text(self._folder)

    @property
    def _speaks(self) -> bool:
        """Whether its conditions come from prompts."""
        texts = self._kind in ("UNet2DConditionModel", "PixArtTransformer2DModel")
        return texts and not self._random and not self._has_class_tokens

    @property
    def _has_class_tokens(self) -> bool:
        """Whether its network reads a class as it would read a prompt of one token."""
        return self._folder is not None and self._folder.part("class_embedder") is not None

    @cached_property
    def _conditioning(self) -> Conditioning:
        tokens = TOKENS if self._preset is None else self._preset.tokens
        if self._has_class_tokens:
            tokens = 1
        return conditioning(
            self._kind,
            self._config,
            folder=None if self._random else self._folder,
            prompts=read_prompts(self._prompts) if self._speaks else (),
            tokens=tokens or TOKENS,
            pixels=self.latent_shape[1] * self._factor,
            loaded=self._check_unchanged,
        )

    def load(self, *, device: str, dtype: torch.dtype) -> nn.Module:
        """The denoising network; the decoder and text encoders are loaded when first needed."""
        if self._random:
            return random_network(self._kind, self._config, dtype=dtype).to(device)
        assert self._folder is not None
        folder = self._folder.network()
        return load_network(folder, self._kind, self._config, dtype=dtype).to(device)

    def predict(
        self, network: nn.Module, x: Tensor, timestep: Tensor, condition: Mapping[str, Tensor]
    ) -> Tensor:
        """Float32 `[B, C, H, W]`; of networks that learn their variance, the mean's half."""
        arguments = forward_arguments(self._kind, x.to(self.dtype), timestep, condition)
        output: Tensor = network(**arguments, return_dict=False)[0]
        return output[:, : x.shape[1]].float()

    def topology(self, network: nn.Module) -> api.Topology:
        """Found by following the tensors of one call, see `diffusers_topology`.

        Raises:
            AssetError: diffusers built the network, but cannot run it.
        """
        channels, height, width = self.latent_shape
        row = self._conditioning.row(0)
        condition = {name: value[None] for name, value in row.items()}
        try:
            x = torch.zeros(1, channels, height, width, dtype=next(network.parameters()).dtype)
            arguments = forward_arguments(self._kind, x, torch.zeros(1), condition)
            return diffusers_topology(network, arguments)
        except api.TfqError:
            raise
        except Exception as error:
            raise api.AssetError(
                f"model '{self._name}': its {self._kind} cannot be run as its configuration says: "
                f"{type(error).__name__}: {api.printable(error, 300)}"
            ) from error

    def sampler(self, name: str, steps: int) -> api.Sampler:
        """One of `samplers.SAMPLERS`, with the model's own noise schedule."""
        return make_sampler(name, steps, self._scheduler)

    def remarks(self, sampler: str) -> Sequence[str]:
        """Which keys of its scheduler's configuration change nothing under this sampler, if any."""
        if keys := ignored_keys(sampler, self._scheduler):
            told = ", ".join(f"'{key}'" for key in keys)
            return (f"its scheduler's {told} change nothing under sampler '{sampler}'",)
        return ()

    def conditions(self, images: Sequence[int], *, device: str) -> Mapping[str, Tensor]:
        """Class labels or embedded prompts of these images, `[B, ...]`."""
        rows = [self._conditioning.row(image) for image in images]
        return {name: torch.stack([row[name] for row in rows]).to(device) for name in rows[0]}

    def prompts(self, images: Sequence[int]) -> Sequence[str] | None:
        """What these images are to show; None for a model without text or names of classes."""
        if self._speaks:
            known = read_prompts(self._prompts)
        else:
            known = () if self._random or self._folder is None else class_prompts(self._folder)
        return [known[image % len(known)] for image in images] if known else None

    def guidance(self, *, device: str) -> api.Guidance | None:
        """Towards the class or the prompt, away from none; SuiteError where there is none."""
        if self._scale == 1.0:
            return None
        if device not in self._guidance:
            nothing = self._conditioning.nothing()
            if nothing is None:
                raise api.SuiteError(
                    f"model '{self._name}': option 'guidance' is {self._scale:g}, but a "
                    f"{self._kind} without an empty condition cannot be guided; expected 1."
                )
            rows = {name: value[None].to(device) for name, value in nothing.items()}
            self._guidance[device] = api.Guidance(scale=self._scale, condition=rows)
        return self._guidance[device]

    @cached_property
    def _decoder(self) -> Decoder | None:
        folder = self._decoder_folder
        if folder is None or (self._random and weights_fault(folder)):
            return None
        decoder = Decoder(folder, self._decoder_config)
        self._check_unchanged()
        return decoder

    def decode(self, latents: Tensor) -> Tensor:
        """uint8 `[B, H, W, 3]`. Latents without a decoder are shown as they are, three channels.

        Raises:
            CellError: values that are not finite.
        """
        if self._decoder is not None:
            return to_pixels(self._decoder(latents))
        # Latents have about unit variance, pixels lie in [-1, 1].
        return to_pixels(latents if self._factor == 1 else latents / 3.0)

    def reference(self, extractor: str) -> Path | None:  # noqa: ARG002
        """None: statistics of the training images are not ours to give."""
        return None
