"""Turns a checkpoint into what the package embeds: float16 weights and where they come from.

`python -m tfq_bench_cifar10.export --checkpoint DIR --to src/tfq_bench_cifar10/weights --commit H`

The moving average of the weights is exported, not the last weights, as DDPM does (appendix B).
"""

# ruff: noqa: T201 - a command: its output is its interface

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from tfq_bench_cifar10.checkpoint import load_checkpoint
from tfq_bench_cifar10.network import NETWORKS, build_trainable

__all__ = ["export", "main"]

CURVE_POINTS = 200
WEIGHTS_BYTES = 16_000_000
LICENCE_NOTE = (
    "Trained from scratch by this script; the weights are under the licence of this package "
    "(Apache-2.0). CIFAR-10 (Krizhevsky, 2009) is published without an explicit licence and is "
    "not part of this package."
)
DATA_NOTE = (
    "CIFAR-10 training images as JPEG of quality 75, chroma at half resolution. The model has "
    "learned their artefacts: do not compare its scores with scores on the lossless images."
)


def export(checkpoint: Path, target: Path, commit: str) -> dict[str, Any]:
    """Writes the weights and their provenance into `target`; returns the provenance.

    Args:
        checkpoint: a folder that `tfq_bench_cifar10.train` wrote.
        target: a folder, made if absent; the network's two files are replaced, others left.
        commit: the commit of the training script that was run, hexadecimal.

    Raises:
        FileNotFoundError: there is no finished checkpoint.
        ValueError: its weights are not this network's, or a weight is no finite float16 number.
    """
    groups, state = load_checkpoint(checkpoint)
    network = NETWORKS[state["facts"]["network"]]
    weights = {name: value.to(torch.float16).contiguous() for name, value in groups["ema"].items()}
    with torch.device("meta"):
        module = build_trainable(network)
    expected = {name: value.shape for name, value in module.named_parameters()}
    if expected != {name: value.shape for name, value in weights.items()}:
        raise ValueError(
            f"{checkpoint}: expected the {len(expected)} tensors of the network '{network.name}', "
            f"found {len(weights)} with other names or shapes. Export with the code that trained "
            "it."
        )
    broken = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(
            f"{checkpoint}: expected finite float16 weights, found others in {broken[0]} (and "
            f"{len(broken) - 1} more). The training diverged; do not embed it."
        )
    content = save(weights)
    assert len(content) < WEIGHTS_BYTES, "the networks have less than 8 M parameters"
    curve = [[step, round(loss, 6)] for step, loss in thinned(state["loss_curve"])]
    provenance = {
        "script": "tfq_bench_cifar10.train",
        "commit": commit,
        "weights": f"{network.file}.safetensors",
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "weights_kind": "moving average, float16",
        "parameters": sum(value.numel() for value in weights.values()),
        "steps": state["step"],
        "images": state["images"],
        "minutes": round(state["seconds"] / 60, 2),
        "sessions": state["sessions"],
        **state["facts"],
        "data_note": DATA_NOTE,
        "licence_note": LICENCE_NOTE,
        "loss_curve": curve,
    }
    target.mkdir(parents=True, exist_ok=True)
    (target / f"{network.file}.safetensors").write_bytes(content)
    (target / f"{network.file}.json").write_text(json.dumps(provenance, indent=1) + "\n")
    return provenance


def thinned(curve: list[list[float]]) -> list[list[float]]:
    """At most 200 of the (step, loss) pairs, evenly spread, the first and the last among them."""
    if len(curve) <= CURVE_POINTS:
        return curve
    last = len(curve) - 1
    return [curve[round(i * last / (CURVE_POINTS - 1))] for i in range(CURVE_POINTS)]


def main(argv: list[str] | None = None) -> None:
    """Entry point of `python -m tfq_bench_cifar10.export`."""
    parser = argparse.ArgumentParser(
        prog="python -m tfq_bench_cifar10.export", description=__doc__.split("\n", 1)[0]
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="--out of the training")
    parser.add_argument("--to", type=Path, required=True, help="folder of the embedded weights")
    parser.add_argument("--commit", required=True, help="commit of the training script that ran")
    options = parser.parse_args(argv)
    try:
        facts = export(options.checkpoint, options.to, options.commit)
    except (FileNotFoundError, ValueError) as error:
        parser.exit(2, f"{error}\n")
    print(
        f"{options.to / facts['weights']}: {facts['parameters']:,} parameters after "
        f"{facts['steps']:,} steps, sha256 {facts['weights_sha256']}"
    )


if __name__ == "__main__":
    main()
