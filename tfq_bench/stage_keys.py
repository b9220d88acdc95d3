"""What the key of every stage is made of: all that its result depends on, and nothing else.

Never among it: worker counts, places of files, dates, and what other cells do. The number of images
and the shards are in the keys of samples only, as index ranges, so that a suite with more images
finds the first ones done.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfq_bench.border import Component, Scheme
from tfq_bench.errors import AssetError, BrokenPlugin, TfqError
from tfq_bench.inspection import cause
from tfq_bench.inventory import asset_identities
from tfq_bench.keys import content_digest, digest
from tfq_bench.plan import EAGER
from tfq_bench.providers import (
    BackendProvider,
    Execution,
    ModelProvider,
    Provider,
    QuantizerProvider,
)

if TYPE_CHECKING:
    from tfq_bench.host import PluginTable
    from tfq_bench.protocols import Model
    from tfq_bench.suite import SuiteSpec

__all__ = ["KeyMaker"]


class KeyMaker:
    """Makes the keys of one suite's cells with what is installed; files are read once.

    Args:
        shards: index ranges [start, stop) of the images.
    """

    def __init__(
        self, spec: SuiteSpec, table: PluginTable, shards: tuple[tuple[int, int], ...]
    ) -> None:
        self._spec = spec
        self._table = table
        self._shards = shards
        self._files: dict[str, str] = {}
        # The sampler is in the basis, where its default has a name; images and shard are ranges.
        left = ("sampler", "images", "shard")
        self._sampling = {key: value for key, value in spec.sampling.items() if key not in left}

    def content(self, provider: Provider, component: Component) -> dict[str, Any]:
        """The options as they enter keys: a file counts by its bytes, not by where it lies.

        Raises:
            AssetError: an option names a file that cannot be read.
        """
        content: dict[str, Any] = dict(component.options)
        for option in provider.options:
            path = str(component.options[option.name])
            if option.kind != "path" or not path:
                continue
            if path not in self._files:
                try:
                    self._files[path] = content_digest(Path(path))
                except (OSError, ValueError) as error:  # ValueError: a name that none can have
                    raise AssetError(
                        f"{provider.kind} '{provider.name}': option '{option.name}' names {path!r},"
                        f" which cannot be read: {getattr(error, 'strerror', None) or error}. "
                        "Correct the path; a relative one starts at the suite's folder."
                    ) from error
            content[option.name] = self._files[path]
        return content

    def basis(
        self, provider: ModelProvider, component: Component, model: Model, sampler: str
    ) -> str:
        """Digest of what every key of the model's cells depends on.

        Raises:
            BrokenPlugin: the model's code raises when it is asked what it is.
        """
        plugin = self._table.distribution_of(provider)
        paths = {option.name for option in provider.options if option.kind == "path"}
        steps = int(self._spec.sampling["steps"])
        try:
            return digest(
                {
                    "model": provider.name,
                    "content": model.digest,  # covers what its files hold
                    "options": {k: v for k, v in component.options.items() if k not in paths},
                    "plugin": plugin,
                    "host": self._table.host_version,
                    "sampler": sampler,
                    "sampler definition": model.sampler(sampler, steps).definition,
                    "device": self._spec.device,
                    "threads": self._spec.threads,
                }
            )
        except TfqError:
            raise
        except (Exception, SystemExit) as error:
            raise BrokenPlugin(
                f"model '{component.name}' ({plugin}) cannot say what it is: {cause(error)}."
            ) from error

    def quantize(
        self,
        basis: str,
        provider: QuantizerProvider,
        component: Component,
        scheme: Scheme,
        seed: int,
    ) -> tuple[str | None, str]:
        """Keys of calibration, None for full precision, and of the quantized state."""
        if scheme.label == "FP":
            return None, digest({"basis": basis, "scheme": "FP"})
        # Bits and policy are not part of it: what a method must see may not depend on them, so
        # that all widths of one method share one pass over the sampler.
        calibrate = digest(
            {
                "basis": basis,
                "calibration": self._spec.calibration,
                "seed": seed,
                "quantizer": provider.name,
                "options": self.content(provider, component),
                **self._assets(provider, component),
                "quantizer plugin": self._table.distribution_of(provider),
            }
        )
        quantize = digest(
            {
                "calibrate": calibrate,
                "wbits": scheme.wbits,
                "abits": scheme.abits,
                "policy": scheme.policy,
            }
        )
        return calibrate, quantize

    def lower(
        self,
        quantize: str,
        provider: BackendProvider | None,
        component: Component,
    ) -> str:
        """Key of the executable network; without a backend it is the model's own."""
        return digest(
            {
                "quantize": quantize,
                "backend": provider.name if provider else EAGER,
                "options": self.content(provider, component) if provider else None,
                **(self._assets(provider, component) if provider else {}),
                "plugin": self._table.distribution_of(provider) if provider else None,
            }
        )

    def cell(self, lower: str) -> str:
        """Key of the cell, whatever number of images it is asked for."""
        return digest({"lower": lower, "sampling": self._sampling})

    def samples(self, lower: str) -> tuple[str, ...]:
        """One key per shard."""
        return tuple(
            digest({"lower": lower, "sampling": self._sampling, "shard": shard})
            for shard in self._shards
        )

    def measure(self, lower: str, execution: Execution) -> str | None:
        """Key of the timings; None where the latency of a simulation would say nothing."""
        if execution == "simulated":
            return None
        return digest({"lower": lower, "timing": self._spec.timing})

    def evaluate(
        self,
        metric: Component,
        samples: tuple[str, ...],
        reference: tuple[str, ...] | None,
        measure: str | None,
    ) -> str:
        """Key of a metric's values.

        Args:
            reference: samples of the full-precision cell, None when there is none.
            measure: of the timings, which only metrics that read them depend on.
        """
        provider = self._table.get("metric", metric.name)
        return digest(
            {
                "metric": provider.name,
                **({"label": metric.label} if metric.label else {}),
                "options": self.content(provider, metric),
                **self._assets(provider, metric),
                "plugin": self._table.distribution_of(provider),
                "samples": samples,
                "reference": reference,
                "measure": measure if provider.timed else None,
            }
        )

    def _assets(self, provider: Provider, component: Component) -> dict[str, dict[str, str]]:
        """Fetched files that nothing pins count by their content, like files that options name."""
        found = asset_identities(self._table, provider, component)
        return {"assets": found} if found else {}
