"""Statistics of a data set's features, as a model ships them for its metrics.

One safetensors file: `mean` float64 `[D]`, `covariance` float32 `[D(D+1)/2]` (the upper triangle,
row by row), `features` float16 `[M, D]` of a fixed, evenly spaced subset (for distances that need
points), and a JSON text under `reference` in the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tfq_bench.errors import AssetError, MetricError
from tfq_bench.foreign.text import parse_json, printable
from tfq_bench.metrics.assets import sha256_of

if TYPE_CHECKING:
    from tfq_bench.metrics.extractors import Extractor
    from tfq_bench.protocols import EvaluationInputs

__all__ = ["FORMAT", "SUBSET", "ReferenceStatistics", "reference_for"]

FORMAT = 1
SUBSET = 2048
METADATA = "reference"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReferenceStatistics:
    """What is known of a reference set's features.

    Args:
        mean: float64 `[D]`. covariance: float64 `[D, D]`, with n - 1 in the denominator.
        features: float32 `[M, D]` of the subset.
        n: images behind mean and covariance.
        protocol: of the extractor that made them.
        provenance: JSON-able: which data, by what.
        digest: of the file, empty before it is one.
    """

    mean: np.ndarray
    covariance: np.ndarray
    features: np.ndarray
    n: int
    protocol: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""

    @classmethod
    def of(
        cls, features: np.ndarray, extractor: Extractor, provenance: Mapping[str, Any]
    ) -> ReferenceStatistics:
        """Statistics of float32 features `[N, D]`, N >= 2."""
        x = features.astype(np.float64)
        subset = np.arange(min(SUBSET, len(x))) * len(x) // min(SUBSET, len(x))
        return cls(
            mean=x.mean(axis=0),
            covariance=np.cov(x, rowvar=False),
            features=features[subset],
            n=len(x),
            protocol=extractor.protocol,
            provenance=provenance,
        )

    def save(self, path: Path) -> None:
        """Writes the file."""
        upper = np.triu_indices(len(self.mean))
        header = {
            "format": FORMAT,
            "n": self.n,
            "protocol": dict(self.protocol),
            "provenance": dict(self.provenance),
        }
        save_file(
            {
                "mean": self.mean,
                "covariance": np.ascontiguousarray(self.covariance[upper], dtype=np.float32),
                "features": np.ascontiguousarray(self.features, dtype=np.float16),
            },
            path,
            metadata={METADATA: json.dumps(header, sort_keys=True)},
        )

    @classmethod
    def load(cls, path: Path) -> ReferenceStatistics:
        """The statistics in the file at `path`.

        Raises:
            AssetError: it cannot be read or is no such file.
        """
        digest = sha256_of(path)
        try:
            with safe_open(path, framework="numpy") as file:
                header = parse_json(file.metadata()[METADATA])
                mean, triangle, features = (
                    file.get_tensor(name) for name in ("mean", "covariance", "features")
                )
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise AssetError(
                f"{path}: expected a file of reference statistics, found something else ({error}). "
                "Make it again with the model's own script."
            ) from error
        if not isinstance(header, dict) or {"protocol", "provenance"} - set(header):
            raise AssetError(
                f"{path}: expected a file of reference statistics with 'protocol' and "
                "'provenance'. Make it again with the model's own script."
            )
        if header.get("format") != FORMAT:
            raise AssetError(
                f"{path}: reference statistics of format {header.get('format')}, expected {FORMAT}."
            )
        _check(path, header, mean, triangle, features)
        upper = np.triu_indices(len(mean))
        covariance = np.zeros((len(mean), len(mean)))
        covariance[upper] = triangle
        covariance.T[upper] = triangle
        features = features.astype(np.float32)
        for array in (mean, covariance, features):
            array.flags.writeable = False  # one object serves every metric of a process
        return cls(
            mean=mean,
            covariance=covariance,
            features=features,
            n=int(header["n"]),
            protocol=header["protocol"],
            provenance=header["provenance"],
            digest=digest,
        )


def _check(
    path: Path, header: Any, mean: np.ndarray, triangle: np.ndarray, features: np.ndarray
) -> None:
    """Nothing; AssetError when the parts do not belong together or are no numbers."""
    width = len(mean) if mean.ndim == 1 else 0
    shapes = {
        "mean": (mean.shape, (width,)),
        "covariance": (triangle.shape, (width * (width + 1) // 2,)),
        "features": (features.shape, (len(features), width)),
    }
    faults = [
        f"'{name}' of shape {list(found)} instead of {list(expected)}"
        for name, (found, expected) in shapes.items()
        if found != expected
    ]
    parts = {"mean": mean, "covariance": triangle, "features": features}
    faults += [f"'{k}' with numbers that are not finite" for k, v in parts.items() if _broken(v)]
    if len(features) < 2:
        faults.append(f"{len(features)} features, which have no pairs")
    n = header.get("n")
    if isinstance(n, bool) or not isinstance(n, int) or n < 2:
        faults.append(f"'n' = {printable(repr(n), 40)}")
    if faults:
        raise AssetError(
            f"{path}: expected reference statistics of at least 2 images, found "
            f"{', '.join(faults)}. Make the file again with the model's own script."
        )


def _broken(values: np.ndarray) -> bool:
    return not bool(np.isfinite(values).all())


@lru_cache(maxsize=2)
def _load(path: Path, digest: str) -> ReferenceStatistics:  # noqa: ARG001  (part of the cache key)
    return ReferenceStatistics.load(path)


def reference_for(
    inputs: EvaluationInputs, extractor: Extractor, path: str = ""
) -> ReferenceStatistics:
    """The reference statistics that the cell's features are compared with.

    Args:
        path: a file of the user's; empty for the one that ships with the model.

    Raises:
        MetricError: the model has none, or they were made by another extractor.
    """
    file = Path(path) if path else inputs.loaded.model.reference(extractor.name)
    if file is None:
        raise MetricError(
            f"the model ships no reference statistics for the extractor '{extractor.name}'. "
            "Make them from its training images with tfq_bench.metrics.ReferenceStatistics, or "
            "leave the metric out."
        )
    found = _load(file, sha256_of(file))
    if dict(found.protocol) != dict(extractor.protocol):
        differing = sorted(
            key
            for key in {*found.protocol, *extractor.protocol}
            if found.protocol.get(key) != extractor.protocol.get(key)
        )
        raise MetricError(
            f"{file}: these statistics were made by another extractor than '{extractor.name}' "
            f"({', '.join(differing)} differ); make them again with this one."
        )
    return found
