"""What the tasks of one process share: loaded models, quantized states and lowered networks.

A process that runs many cells (the `inline` executor) loads a model once; a process of a cell loads
what that cell needs. Results do not depend on which of the two it was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from tfq_bench.errors import CellError, LoweringError, StoreError
from tfq_bench.pipeline.calibrate import load_calibration
from tfq_bench.pipeline.external import PRODUCT
from tfq_bench.pipeline.guard.fingerprint import Fingerprint
from tfq_bench.pipeline.guard.functions import Functions
from tfq_bench.pipeline.guard.settings import own_settings
from tfq_bench.pipeline.memory import return_freed_memory
from tfq_bench.plan.plan import EAGER
from tfq_bench.provenance.running_code import RunningCode
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.quant.state.quantized_state import QuantizedState
from tfq_bench.quant.state.storage import load_state
from tfq_bench.types.networks import LoadedModel, Lowered

if TYPE_CHECKING:
    from tfq_bench.host.table import PluginTable
    from tfq_bench.plan.plan import Plan, PlannedCell
    from tfq_bench.protocols import Contestant, Quantizer
    from tfq_bench.store.artefacts import ArtefactStore
    from tfq_bench.types import CalibrationData, Component
    from tfq_bench.types.models import Model

__all__ = ["CellContext"]


class CellContext:
    """Models and networks of a plan, made when first asked for.

    Args:
        store: where artefacts of earlier stages are found.
    """

    def __init__(self, plan: Plan, table: PluginTable, store: ArtefactStore) -> None:
        self.plan = plan
        self.table = table
        self.store = store
        self.device = plan.spec.device
        self.code = RunningCode()
        self._loaded: dict[str, LoadedModel] = {}
        self._fingerprints: dict[str, Fingerprint] = {}
        self._lowered: tuple[str, Lowered] | None = None
        # Before foreign code ran; more of a model's is seen when it is loaded.
        self._functions = Functions(plugin.module.partition(".")[0] for plugin in table.plugins)
        store.before_sealing = self._check
        torch.set_num_threads(plan.spec.threads)
        # Full precision means float32: cuDNN would round to TF32's ten bits unasked.
        torch.backends.cudnn.allow_tf32 = False

    def create(self, kind: str, component: Component, **extra: Any) -> Any:
        """A provider's object with the component's options."""
        return self.table.create(
            self.table.get(kind, component.name), **extra, **dict(component.options)
        )

    def _check(self) -> None:
        """Whatever keeps a result from being stored."""
        self.plan.check_code()
        self.check_models()

    def loaded(self, planned: PlannedCell) -> LoadedModel:
        """The cell's full-precision model in float32, with topology and sampler."""
        key = repr(planned.cell.model)
        if key not in self._loaded:
            # Whoever asks first, it is loaded the same, and what that changes goes no further.
            with own_settings(0):
                self._loaded[key] = self._load(planned)
            self._fingerprints[key] = Fingerprint(self._loaded[key])
            self._functions.add_classes(self._fingerprints[key].classes)
        return self._loaded[key]

    def _load(self, planned: PlannedCell) -> LoadedModel:
        model = self.create("model", planned.cell.model)
        network = model.load(device=self.device, dtype=model.dtype)
        self._check_planned(planned, model)
        return_freed_memory(network)
        sampling = self.plan.spec.sampling
        provider = self.table.get("model", planned.cell.model.name)
        name = str(sampling["sampler"]) or provider.samplers[0]
        return LoadedModel(
            model=model,
            network=network,
            topology=model.topology(network),
            sampler=model.sampler(name, int(sampling["steps"])),
            device=self.device,
        )

    def _check_planned(self, planned: PlannedCell, model: Model) -> None:
        """StoreError when the model on the disk is another by now, as while a training goes on."""
        facts = (self.plan.ingredients[name] for name in planned.made_of["lower"])
        digest = next(fact["content"] for fact in facts if "content" in fact)
        if model.digest != digest:
            raise StoreError(
                f"model '{planned.cell.model.name}' is another than when the run was planned: its "
                "files were changed. Nothing finished is lost; let them be while a run goes on, "
                "and repeat the command."
            )

    def check_models(self) -> None:
        """Nothing, when every loaded model and what computes it are what they were.

        Models that are not are loaded again when asked for, functions are put back.

        Raises:
            CellError: names what was changed.
        """
        changes = [name for held in self._fingerprints.values() for name in held.changes()]
        replaced = self._functions.restore()
        if not changes and not replaced:
            for held in self._fingerprints.values():
                self._functions.add_classes(held.classes)  # of what was loaded meanwhile
            return
        self._lowered = None  # may share tensors with what was changed, or hold on to a function
        reasons = []
        if changes:
            self._fingerprints.clear()
            self._loaded.clear()
            reasons.append(
                f"the full-precision model was changed ({_some(changes)}), which would change "
                "other results too. A plugin works on a copy; nothing of this was stored, and the "
                "model is loaded again."
            )
        if replaced:
            reasons.append(
                f"functions were replaced ({_some(replaced)}) that other results are computed with "
                "too. A plugin changes its own layers only; nothing of this was stored, and the "
                "functions are put back."
            )
        raise CellError(" ".join(reasons))

    def left_behind(self) -> str:
        """What to add to a failure that also changed the model, which is then loaded again."""
        try:
            self.check_models()
        except CellError as error:
            return f" Before that, {error}"
        return ""

    def quantizer(self, planned: PlannedCell) -> Quantizer:
        """The cell's method at the cell's bits and policy."""
        quantizer: Quantizer = self.create(
            "quantizer", planned.cell.quantizer, scheme=planned.cell.scheme
        )
        return quantizer

    def contestant(self, planned: PlannedCell) -> Contestant:
        """The tool of an external cell, at the cell's bits."""
        contestant: Contestant = self.create(
            "quantizer", planned.cell.quantizer, scheme=planned.cell.scheme
        )
        return contestant

    def calibration(self, planned: PlannedCell) -> CalibrationData:
        """What the calibrate stage captured for the cell."""
        assert planned.keys.calibrate is not None
        return load_calibration(self.store.open("calibrate", planned.keys.calibrate), self.device)

    def state(self, planned: PlannedCell) -> QuantizedState | None:
        """What the quantize stage made, None for full precision and for contestants."""
        if planned.execution in ("full-precision", "external"):
            return None
        return load_state(self.store.open("quantize", planned.keys.quantize) / "state")

    def simulated(self, planned: PlannedCell) -> Lowered:
        """The cell's network in float arithmetic on the same integers."""
        return simulate(self.loaded(planned), self.state(planned))

    def lowered(self, planned: PlannedCell) -> Lowered:
        """The cell's network as its backend executes it; the last one made is kept."""
        key = planned.keys.lower
        if self._lowered is None or self._lowered[0] != key:
            self._lowered = None  # frees the previous network before the next is made
            with own_settings(0):
                self._lowered = (key, self._lower(planned))
        return self._lowered[1]

    def forget_lowered(self) -> None:
        """The next `lowered` makes its network anew."""
        self._lowered = None

    def _lower(self, planned: PlannedCell) -> Lowered:
        if planned.cell.backend.name == EAGER:
            return self.simulated(planned)
        state = self.state(planned)
        if planned.execution == "external":
            provider = self.table.get("quantizer", planned.cell.quantizer.name)
            folder = self.store.open("quantize", planned.keys.quantize) / PRODUCT
            method = "load"
            lowered = self.contestant(planned).load(self.loaded(planned), folder)
        else:
            provider = self.table.get("backend", planned.cell.backend.name)
            backend = self.create("backend", planned.cell.backend)
            method = "lower"
            lowered = backend.lower(self.loaded(planned), state)
        if not isinstance(lowered, Lowered):
            raise LoweringError(
                f"{provider.kind} '{provider.name}' ({self.table.distribution_of(provider)}): "
                f"`{method}` is expected a Lowered, found {type(lowered).__name__}."
            )
        if state is not None and state.correction is not None:
            lowered = replace(lowered, correction=state.correction)
        return lowered


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
