"""The embedded weights: a safetensors file for each network, beside it where it comes from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from tfq_bench import api

if TYPE_CHECKING:
    from torch import Tensor

    from tfq_bench_cifar10.network import Network

__all__ = ["WEIGHTS", "checked_file", "load_weights"]

WEIGHTS = Path(__file__).parent / "weights"


def load_weights(network: Network) -> tuple[dict[str, Tensor], Tensor | None]:
    """The network's float16 weights by name, and its class tokens `[11, 4, 128]` if it has some.

    Raises:
        AssetError: as for `checked_file`.
    """
    from safetensors.torch import load

    weights = load(checked_file(network))
    return weights, weights.pop("class_tokens", None)


def checked_file(network: Network) -> bytes:
    """The network's safetensors file, checked against the digest in its provenance.

    Raises:
        AssetError: it is not there (with the commands that make it), or another than described.
    """
    path, provenance = WEIGHTS / f"{network.file}.safetensors", WEIGHTS / f"{network.file}.json"
    try:
        content = path.read_bytes()
        stated = json.loads(provenance.read_text("utf-8"))["weights_sha256"]
    except FileNotFoundError as error:
        raise api.AssetError(
            f"model '{network.model}': its weights are not embedded, expected {error.filename}. "
            "Reinstall tfq-bench-cifar10, or train them: `python -m tfq_bench_cifar10.train "
            f"--network {network.name} --data cifar10-jpeg.npz --out checkpoint-{network.name} "
            f"--budget-minutes 12`, then `python -m tfq_bench_cifar10.export --checkpoint "
            f"checkpoint-{network.name} --to {WEIGHTS} --commit HASH`."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise api.AssetError(
            f"{provenance}: expected JSON with the key weights_sha256, found none "
            f"({type(error).__name__}); reinstall tfq-bench-cifar10."
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != stated:
        raise api.AssetError(
            f"{path}: expected the SHA-256 {stated} of {provenance.name}, found {found}. The file "
            "was changed or cut off; reinstall tfq-bench-cifar10."
        )
    return content
