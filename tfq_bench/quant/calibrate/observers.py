"""Looking at every layer's input in the full-precision network, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Literal

import torch

from tfq_bench.errors import CalibrationError, QuantizationError
from tfq_bench.quant.calibrate.ranges import MOMENTUM, EmaRange, minmax, mse_range, percentile
from tfq_bench.quant.layers import find_layer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tfq_bench.types import CalibrationData
    from tfq_bench.types.networks import LoadedModel
    from tfq_bench.types.tasks import Progress

__all__ = ["InputRanges", "Observer", "RangeMethod", "observation_order", "observe_inputs"]

RangeMethod = Literal["minmax", "mse", "percentile", "ema"]
Observer = Callable[[str, "Tensor"], None]
"""Called with a layer's name and its input; must not keep the tensor."""

SAMPLE_LIMIT = 2**16
"""Values kept per layer by the methods that need a sample (256 KiB of float32)."""


@torch.no_grad()
def observe_inputs(
    loaded: LoadedModel,
    data: CalibrationData,
    *,
    batch: int,
    observe: Observer,
    layers: Collection[str] | None = None,
    order: Tensor | None = None,
    progress: Progress | None = None,
) -> None:
    """Runs the full-precision network over `data` and shows each layer's input to `observe`.

    The network is as before when this returns.

    Args:
        batch: calibration samples per network call.
        order: int64 `[M]`, the rows in the order in which they are run; None for that of `data`,
            (step, image). See `observation_order`.
        layers: names of the layers to look at, None for all of the topology.

    Raises:
        CalibrationError: there are no samples.
    """
    count = len(data.x)
    if count == 0:
        raise CalibrationError(
            "static activation ranges need calibration data, found no samples; ask for at least "
            "one calibration image."
        )
    names = [layer.name for layer in loaded.topology.layers]

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: observe(name, inputs[0].detach())

    handles = [
        find_layer(loaded.network, name).register_forward_pre_hook(watch(name))
        for name in names
        if layers is None or name in layers
    ]
    try:
        for start in range(0, count, batch):
            rows = slice(start, start + batch) if order is None else order[start : start + batch]
            loaded.model.predict(
                loaded.network,
                data.x[rows],
                data.timestep[rows],
                {name: value[rows] for name, value in data.condition.items()},
            )
            if progress is not None:
                progress(min(start + batch, count) / count, "observing inputs")
    finally:
        for handle in handles:
            handle.remove()


def observation_order(
    method: RangeMethod, data: CalibrationData, *, generator: torch.Generator
) -> Tensor | None:
    """In what order a range method must see the samples of `data`; None where it does not matter.

    A moving average forgets: of data that are ordered by step it would keep the last steps only, so
    its samples come in random order, int64 `[M]`, on the data's device.

    Args:
        generator: CPU; only `ema` draws from it.
    """
    if method != "ema":
        return None
    return torch.randperm(len(data.x), generator=generator).to(data.x.device)


class InputRanges:
    """Ranges of many layers' inputs, gathered batch by batch; an `Observer` by its `update`.

    `minmax` and `ema` stream. `mse` and `percentile` keep at most `SAMPLE_LIMIT` values per
    layer, drawn uniformly with replacement, an equal number from each of the layer's inputs.

    Args:
        batches: how many network calls will be observed; divides the sample among them.
        generator: CPU generator of the sample.
        momentum: of `ema`, see `EmaRange`.
    """

    def __init__(
        self,
        method: RangeMethod,
        *,
        batches: int,
        generator: torch.Generator,
        momentum: float = MOMENTUM,
    ) -> None:
        self.method = method
        self._momentum = momentum
        self._quota = max(1, SAMPLE_LIMIT // max(1, batches))
        self._generator = generator
        self._low: dict[str, Tensor] = {}
        self._high: dict[str, Tensor] = {}
        self._ema: dict[str, EmaRange] = {}
        self._samples: dict[str, list[Tensor]] = {}

    def update(self, name: str, x: Tensor) -> None:
        """Takes an input of the layer called `name`.

        Raises:
            CalibrationError: a value is not finite.
        """
        flat = x.float().reshape(1, -1)
        try:
            low, high = minmax(flat)
        except QuantizationError as error:
            raise CalibrationError(f"input of layer '{name}': {error}") from error
        if self.method == "ema":
            self._ema.setdefault(name, EmaRange(self._momentum)).update(low, high)
            return
        self._low[name] = torch.minimum(self._low.get(name, low), low)
        self._high[name] = torch.maximum(self._high.get(name, high), high)
        if self.method in ("mse", "percentile"):
            kept = self._samples.setdefault(name, [])
            # A layer that runs several times per call sends more inputs than were announced.
            if sum(map(len, kept)) < SAMPLE_LIMIT:
                index = torch.randint(flat.shape[1], (self._quota,), generator=self._generator)
                kept.append(flat[0, index.to(flat.device)])

    def range(self, name: str, bits: int) -> tuple[Tensor, Tensor]:
        """`(low, high)` of a layer's input, float32 `[1]` each, for codes of `bits` bits.

        Raises:
            CalibrationError: the layer was never run.
        """
        if name not in self._low and name not in self._ema:
            raise CalibrationError(
                f"layer '{name}' was not run by the network during calibration; its input's range "
                "is unknown."
            )
        if self.method == "ema":
            return self._ema[name].range()
        whole = (self._low[name], self._high[name])
        if self.method == "minmax":
            return whole
        rows = torch.cat(self._samples[name])[None]
        if self.method == "mse":
            return mse_range(rows, bits, start=whole)
        return percentile(rows)
