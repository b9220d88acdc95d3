"""Which weight files of a component are opened. Imports no torch.

The order is that of the libraries' own `from_pretrained` for a local folder, without variants.
diffusers prefers an index to an undivided file, transformers the undivided file; both prefer
safetensors. Whatever else lies in the folder (adapters, variants, other formats) is not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tfq_bench import api

__all__ = ["Library", "Weights", "find_weights"]

Library = Literal["diffusers", "transformers"]

_STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
_PICKLED = {"diffusers": "diffusion_pytorch_model", "transformers": "pytorch_model"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The files that hold a component's tensors.

    Args:
        files: what is opened, in the order of their names.
        index: which says what tensor is in what file; None for an undivided file.
        names: of tensor to its file's name, as the index says; empty without.
    """

    files: tuple[Path, ...]
    index: Path | None
    names: dict[str, str]

    @property
    def safe(self) -> bool:
        """Whether they are safetensors; else pickles."""
        return self.files[0].suffix == ".safetensors"


def find_weights(folder: Path, library: Library) -> Weights:
    """The weight files that `library` opens for the component in `folder`.

    Raises:
        AssetError: there are none, some are missing, or it is not clear which count.
    """
    whole = folder / f"{_STEMS[library]}.safetensors"
    index = folder / f"{whole.name}.index.json"
    pickled = folder / f"{_PICKLED[library]}.bin"
    pickled_index = folder / f"{pickled.name}.index.json"
    order = [whole, index] if library == "transformers" else [index, whole]
    for path in order:
        if path.is_file():
            return _divided(path) if path == index else _undivided(path)
    if pickled.is_file() and pickled_index.is_file():
        raise api.AssetError(
            f"both {pickled.name} and {pickled_index.name}, and it is not clear which counts; "
            "remove one"
        )
    if pickled_index.is_file():
        return _divided(pickled_index)
    if pickled.is_file():
        return _undivided(pickled)
    raise api.AssetError(
        f"no weights; expected one of {', '.join(one.name for one in (*order, pickled))}"
    )


def _undivided(path: Path) -> Weights:
    return Weights(files=(path,), index=None, names={})


def _divided(index: Path) -> Weights:
    try:
        names = api.parse_json(index.read_bytes())["weight_map"]
        files = sorted(set(names.values()))
        plain = all(Path(name).name == name and name for name in files)
        if not files or not plain:
            raise ValueError("its 'weight_map' names no files")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise api.AssetError(
            f"{index.name} is no index of weight files ({api.printable(error, 200)})"
        ) from None
    absent = [name for name in files if not (index.parent / name).is_file()]
    if absent:
        raise api.AssetError(
            f"{len(absent)} of {len(files)} weight files absent, "
            f"{api.printable(absent[0], 200)} first"
        )
    return Weights(
        files=tuple(index.parent / name for name in files), index=index, names=dict(names)
    )
