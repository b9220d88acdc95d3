"""How the Fréchet distance of a run's cells, and its interval, depend on the number of images.

    tfq-bench run cifar10-images --run runs/cifar10-images
    python benchmarks/fd_images.py runs/cifar10-images --device cuda > fd_images.md

For each N the first N images of each cell, with EfficientNet-Lite0's features. A resample draws the
same images of every cell, so the difference to full precision has a paired interval. `± SE` is one
standard error over the resamples. The last columns say how many images resolve a difference of 2 %
of full precision's distance: an interval of 95 % that ends there has 1.96 SE = 2 %, and SE falls
with the root of N.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np

from tfq_bench import load_records
from tfq_bench.host.plugins import discover
from tfq_bench.metrics import ReferenceStatistics, efficientnet_lite0
from tfq_bench.metrics.frechet import frechet_replicates
from tfq_bench.stats.intervals import bootstrap_counts
from tfq_bench.store import RunFolder

SIZES = [1000, 2000, 5000, 10_000, 20_000, 50_000]
CLAIM = 0.02
"""Of full precision's distance."""


def main(arguments: list[str]) -> int:
    """Prints Markdown."""
    args = parser().parse_args(arguments)
    cells = images_of(args.run)
    full = next(label for label in cells if " fp " in label)
    reference = ReferenceStatistics.load(args.reference)
    extractor = efficientnet_lite0()
    features = {
        label: extractor.features(images, device=args.device) for label, images in cells.items()
    }
    largest = len(features[full])
    print("| images | cell | FD | ± SE | less full precision | ± SE | SE, % | N for 2 % |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|")
    for size in [size for size in args.sizes if size <= largest]:
        counts = np.concatenate(
            [np.ones((1, size), dtype=np.int64), bootstrap_counts(size, args.replicates)]
        )
        found = {
            label: frechet_replicates(
                rows[:size], reference.mean, reference.covariance, counts, device=args.device
            )
            for label, rows in features.items()
        }
        for label, distances in found.items():
            print(line(size, label, distances, found[full]), flush=True)
    return 0


def line(size: int, label: str, distances: np.ndarray, full: np.ndarray) -> str:
    """A row of the table; entry 0 of each array is the sample, the others are its resamples."""
    words = [f"{size:,}", label, f"{distances[0]:.2f}", f"{spread(distances):.2f}"]
    if distances is not full:
        difference = distances - full
        share = spread(difference) / full[0]
        needed = size * (1.96 * share / CLAIM) ** 2
        words += [f"{difference[0]:+.2f}", f"{spread(difference):.2f}", f"{100 * share:.2f}"]
        words += [f"{math.ceil(needed / 100) * 100:,}"]
    else:
        words += [""] * 4
    return f"| {' | '.join(words)} |"


def spread(distances: np.ndarray) -> float:
    """The standard error: standard deviation of the resamples."""
    return float(np.std(distances[1:], ddof=1))


def images_of(run: Path) -> dict[str, np.ndarray]:
    """uint8 images of each cell by label, equally many."""
    folder = RunFolder.open(run)
    records = load_records(run)
    found = {}
    for key, label in records[["cell", "label"]].drop_duplicates().itertuples(index=False):
        images = folder.images(key)
        if images is not None:
            found[label] = images
    return found


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("run", type=Path, help="folder of a run with full precision and other cells")
    made.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    made.add_argument("--replicates", type=int, default=200)
    made.add_argument("--device", default="cpu")
    made.add_argument(
        "--reference", type=Path, default=cifar10_reference(), help="statistics of the data set"
    )
    return made


def cifar10_reference() -> Path | None:
    """The file that the embedded model ships."""
    installed = discover()
    provider = installed.get("model", "cifar10")
    options = {option.name: option.default for option in provider.options}
    return installed.create(provider, **options).reference("efficientnet-lite0")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
