"""Makes the reference statistics: `python -m tfq_bench_cifar10.reference --data FILE --to FOLDER`.

They describe the 50,000 training images, which FID on CIFAR-10 is by custom measured against.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tfq_bench.metrics import Extractor, ReferenceStatistics, extractor, frechet_distance
from tfq_bench_cifar10.data import load_cifar10

__all__ = ["main", "make_reference", "split_distance"]

log = logging.getLogger("tfq_bench_cifar10.reference")


def make_reference(
    images: np.ndarray, network: Extractor, *, data_digest: str, device: str
) -> tuple[ReferenceStatistics, float]:
    """Statistics of uint8 images `[N, H, W, 3]`, and the distance between two parts of them."""
    features = network.features(images, device=device)
    statistics = ReferenceStatistics.of(
        features,
        network,
        {
            "data": "CIFAR-10, training images in file order, as JPEG",
            "data_sha256": data_digest,
            "made_by": "python -m tfq_bench_cifar10.reference",
            "torch": str(torch.__version__),
            "device": device,
        },
    )
    return statistics, split_distance(features)


def split_distance(features: np.ndarray) -> float:
    """Fréchet distance of every fifth row to all others: what a perfect model would get."""
    held = np.arange(len(features)) % 5 == 4
    parts = [features[held].astype(np.float64), features[~held].astype(np.float64)]
    (mean1, cov1), (mean2, cov2) = ((p.mean(axis=0), np.cov(p, rowvar=False)) for p in parts)
    return frechet_distance(mean1, cov1, mean2, cov2)


def main(argv: Sequence[str] | None = None) -> int:
    """Writes `reference-<extractor>.safetensors`."""
    parser = argparse.ArgumentParser(
        prog="python -m tfq_bench_cifar10.reference", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as .npz of JPEG files")
    parser.add_argument("--to", type=Path, required=True, help="folder to write the file to")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--inception", default="", help="Inception weights, to make FID's file")
    parser.add_argument("--inception-sha256", default="", help="digest, if not the published file")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    network = extractor(
        "inception" if args.inception else "efficientnet-lite0",
        inception_weights=args.inception,
        inception_sha256=args.inception_sha256,
    )
    data = load_cifar10(args.data)
    statistics, distance = make_reference(
        data.train_images, network, data_digest=data.digest, device=args.device
    )
    args.to.mkdir(parents=True, exist_ok=True)
    target = args.to / f"reference-{network.name}.safetensors"
    statistics.save(target)
    log.info("%s: %d images, %d bytes", target, statistics.n, target.stat().st_size)
    log.info("distance of every fifth image to all others: %.2f", distance)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
