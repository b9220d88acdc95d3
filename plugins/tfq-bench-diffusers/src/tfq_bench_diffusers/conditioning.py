"""What a network is told besides state and timestep: nothing, a class, or a prompt.

Conditions depend on the image index alone, so that the cells of a suite pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tfq_bench import api
from tfq_bench_diffusers.folders import Folder, read_json
from tfq_bench_diffusers.text import Prompts

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Conditioning", "class_prompts", "conditioning", "read_prompts"]

Row = Mapping[str, "Tensor"]
"""One image's condition, `[...]` by name; see `networks.forward_arguments`."""

PACKAGED = Path(__file__).parent / "prompts.txt"


class Conditioning(Protocol):
    """Conditions by image index."""

    def row(self, image: int) -> Row:
        """The condition of one image, on the CPU."""

    def nothing(self) -> Row | None:
        """What takes the place of a condition under guidance; None when the model knows none."""


def conditioning(
    kind: str,
    config: Mapping[str, Any],
    *,
    folder: Folder | None,
    prompts: Sequence[str],
    tokens: int,
    pixels: int,
    loaded: Callable[[], None] = lambda: None,
) -> Conditioning:
    """The conditioning of a network.

    Args:
        kind, config: the network's class and configuration.
        folder: with text encoders; None for random weights, whose prompts are random too.
        prompts: for image 0, 1, ...; they repeat.
        tokens: length of a random prompt's embedding.
        pixels: side of the image, which SDXL and PixArt are told.
        loaded: called when text encoders have been loaded.
    """
    if kind == "DiTTransformer2DModel":
        count = int(config["num_embeds_ada_norm"])
        return _Classes(count, nothing=count)
    if kind == "UNet2DModel":
        count = int(config.get("num_class_embeds") or 0)
        return _Classes(count, nothing=None) if count else _Unconditional()
    sizes = _sizes(kind, config, pixels)
    embedder = None if folder is None else folder.part("class_embedder")
    if embedder is not None:
        return _ClassTokens(embedder)
    if folder is None:
        return _RandomText(kind, config, tokens, sizes)
    return Prompts(kind, config, folder, prompts, sizes, loaded)


def read_prompts(path: str) -> tuple[str, ...]:
    """The prompts in a text file, one a line, empty lines left out; the packaged ones for `""`.

    Raises:
        AssetError: it cannot be read or holds none.
    """
    file = Path(path) if path else PACKAGED
    try:
        lines = tuple(line.strip() for line in file.read_text("utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise api.AssetError(f"{file}: expected a text file of prompts, found {error}.") from None
    if not lines:
        raise api.AssetError(f"{file}: expected a prompt in each line, found none.")
    return lines


def class_prompts(folder: Folder) -> tuple[str, ...]:
    """What class 0, 1, ... shows ("a photo of a tench"), from the names in a pipeline; () without.

    A class of several names ("tench, Tinca tinca") is called by its first.
    """
    names = folder.parts.get("id2label")
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(len(names))}:
        return ()
    first = (str(names[str(i)]).split(",")[0].strip() for i in range(len(names)))
    return tuple(f"a photo of a {name}" for name in first)


def _sizes(kind: str, config: Mapping[str, Any], pixels: int) -> dict[str, Tensor]:
    """What a network is told of the image's size: nothing that differs between images."""
    side = float(pixels)
    if config.get("addition_embed_type") == "text_time":
        # Original size, corner of the crop, target size.
        return {"sizes": torch.tensor([side, side, 0.0, 0.0, side, side])}
    told = config.get("use_additional_conditions")
    if kind == "PixArtTransformer2DModel" and (
        told or (told is None and config.get("sample_size") == 128)
    ):
        return {"resolution": torch.tensor([side, side]), "aspect": torch.tensor([1.0])}
    return {}


class _Unconditional:
    """No condition."""

    def row(self, image: int) -> Row:  # noqa: ARG002
        return {}

    def nothing(self) -> None:
        return None


class _Classes:
    """Image i shows class i mod the number of classes."""

    def __init__(self, count: int, nothing: int | None) -> None:
        self._count, self._nothing = count, nothing

    def row(self, image: int) -> Row:
        return {"labels": torch.tensor(image % self._count)}

    def nothing(self) -> Row | None:
        return None if self._nothing is None else {"labels": torch.tensor(self._nothing)}


class _ClassTokens:
    """Classes in place of a prompt: one token each, `[1, width]`, read through cross-attention."""

    def __init__(self, folder: Path) -> None:
        weights = folder / "diffusion_pytorch_model.safetensors"
        try:
            self._table: Tensor = load_file(weights)["embedding.weight"].float()
        except (OSError, SafetensorError, KeyError) as error:
            raise api.AssetError(
                f"{weights}: expected 'embedding.weight', a row for each class, found {error}."
            ) from None
        self._nothing = read_json(folder / "config.json").get("unconditional")
        classes = len(self._table) if self._table.dim() == 2 else 0
        if type(self._nothing) is not int or not 0 <= self._nothing < classes:
            raise api.AssetError(
                f"{folder}: expected a table of classes and in config.json which row of it is none "
                f"of them (unconditional), found shape {tuple(self._table.shape)} and "
                f"{api.printable(repr(self._nothing), 80)}. Convert the checkpoint again."
            )

    def row(self, image: int) -> Row:
        classes = [one for one in range(len(self._table)) if one != self._nothing]
        return {"text": self._table[classes[image % len(classes)]][None]}

    def nothing(self) -> Row:
        return {"text": self._table[self._nothing][None]}


class _RandomText:
    """Normal numbers in the shape of an embedded prompt, for networks with random weights."""

    def __init__(
        self, kind: str, config: Mapping[str, Any], tokens: int, sizes: Mapping[str, Tensor]
    ) -> None:
        width = config.get("caption_channels") or config["cross_attention_dim"]
        self._shapes: dict[str, tuple[int, ...]] = {"text": (tokens, int(width))}
        if "sizes" in sizes:
            times = 6 * int(config["addition_time_embed_dim"])
            told = int(config["projection_class_embeddings_input_dim"]) - times
            self._shapes["pooled"] = (told,)
        self._fixed = dict(sizes)
        if kind == "PixArtTransformer2DModel":
            self._fixed["mask"] = torch.ones(tokens)

    def row(self, image: int) -> Row:
        return self._draw(image + 1)

    def nothing(self) -> Row:
        return self._draw(0)

    def _draw(self, seed: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        drawn = {
            name: torch.randn(shape, generator=generator) for name, shape in self._shapes.items()
        }
        return {**drawn, **self._fixed}
