"""One task of one cell, from artefacts to artefact: the order of the stages in one place.

    calibrate -> quantize -> lower -> sample (shards) -> evaluate
                               └────> measure ────────────^

Every executor ends here, and `tfq-bench cell` does too.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfq_bench.pipeline.agreement import Agreement
from tfq_bench.pipeline.calibrate import capture, save_calibration
from tfq_bench.pipeline.cost import Meter
from tfq_bench.pipeline.external import PRODUCT, quantize_externally
from tfq_bench.pipeline.judge import judge
from tfq_bench.pipeline.lower import lowering_facts
from tfq_bench.pipeline.measure import measure
from tfq_bench.pipeline.quantize import quantize
from tfq_bench.pipeline.sample import draw, save_images
from tfq_bench.quant.state.storage import save_state
from tfq_bench.seeds import derive
from tfq_bench.store.disk import store_error
from tfq_bench.types import CalibrationNeeds

if TYPE_CHECKING:
    from tfq_bench.pipeline.cell_context import CellContext
    from tfq_bench.plan.plan import PlannedCell
    from tfq_bench.types.tasks import Progress, Task

__all__ = ["cell_log", "run_task"]

log = logging.getLogger("tfq_bench.cell")


def run_task(context: CellContext, task: Task, progress: Progress) -> None:
    """Runs one task and leaves its artefacts; does nothing when they exist.

    Raises:
        TfqError: what went wrong in words; anything else is a bug in a plugin or in the host.
    """
    if all(context.store.has(task.stage, key) for key in task.outputs):
        return
    planned = context.plan.find(task.cell)
    shard = "" if task.shard is None else f", shard {task.shard}"
    log.info("%s%s of %s", task.stage, shard, planned.cell.label)
    _STAGES[task.stage](context, planned, task, progress)


def _calibrate(context: CellContext, planned: PlannedCell, task: Task, progress: Progress) -> None:
    loaded = context.loaded(planned)
    spec = context.plan.spec.calibration
    needs: CalibrationNeeds = context.quantizer(planned).calibration_needs(
        loaded, images=int(spec["images"])
    )
    with Meter(loaded) as meter:
        data = capture(
            loaded,
            needs,
            seed=derive(int(spec["seed"]), "calibration", planned.cell.seed),
            batch=int(spec["batch"]),
            progress=progress,
        )
    with context.store.create("calibrate", task.outputs[0]) as folder:
        save_calibration(data, folder)
        _write_result(folder, {**meter.facts, "samples": int(data.x.shape[0])})


def _quantize(context: CellContext, planned: PlannedCell, task: Task, progress: Progress) -> None:
    if planned.execution == "full-precision":
        with context.store.create("quantize", task.outputs[0]) as folder:
            _write_result(folder, {"seconds": 0.0, "calibration_samples": 0})
        return
    if planned.execution == "external":
        with context.store.create("quantize", task.outputs[0]) as folder:
            facts = quantize_externally(
                context.contestant(planned),
                context.loaded(planned),
                context.calibration(planned),
                seed=planned.cell.seed,
                progress=progress,
                folder=folder / PRODUCT,
            )
            _write_result(folder, facts)
        return
    checkpoint = context.store.root / "checkpoints" / task.outputs[0]
    state, facts = quantize(
        context.quantizer(planned),
        context.loaded(planned),
        context.calibration(planned),
        seed=planned.cell.seed,
        progress=progress,
        checkpoint=checkpoint,
    )
    with context.store.create("quantize", task.outputs[0]) as folder:
        save_state(state, folder / "state")
        _write_result(folder, facts)
    shutil.rmtree(checkpoint, ignore_errors=True)


def _lower(context: CellContext, planned: PlannedCell, task: Task, progress: Progress) -> None:
    lowered = context.lowered(planned)
    simulated = context.simulated(planned) if planned.execution == "lowered" else None
    progress(0.5, "lowering")
    facts = lowering_facts(
        context.loaded(planned),
        context.state(planned),
        lowered,
        simulated,
        execution=planned.execution,
        batches=_batches(context, planned),
    )
    with context.store.create("lower", task.outputs[0]) as folder:
        _write_result(folder, facts)


def _sample(context: CellContext, planned: PlannedCell, task: Task, progress: Progress) -> None:
    assert task.shard is not None
    spec = context.plan.spec.sampling
    indices = range(*context.plan.shards[task.shard])
    _check_unseen(context, planned, _sizes(len(indices), int(spec["batch"])))
    images = draw(
        context.loaded(planned),
        context.lowered(planned),
        indices,
        seed=int(spec["seed"]),
        batch=int(spec["batch"]),
        progress=progress,
    )
    with context.store.create("sample", task.outputs[0]) as folder:
        save_images(images, indices, folder)


def _measure(context: CellContext, planned: PlannedCell, task: Task, progress: Progress) -> None:
    spec = context.plan.spec.timing
    _check_unseen(context, planned, {int(spec["batch"])})
    progress(0.0, "timing")
    facts = measure(
        context.loaded(planned),
        context.lowered(planned),
        batch=int(spec["batch"]),
        warmup=int(spec["warmup"]),
        rounds=int(spec["rounds"]),
    )
    with context.store.create("measure", task.outputs[0]) as folder:
        _write_result(folder, facts)


def _evaluate(context: CellContext, planned: PlannedCell, task: Task, progress: Progress) -> None:
    judge(context, planned, task.outputs, progress)


_STAGES: dict[str, Callable[[CellContext, PlannedCell, Task, Progress], None]] = {
    "calibrate": _calibrate,
    "quantize": _quantize,
    "lower": _lower,
    "sample": _sample,
    "measure": _measure,
    "evaluate": _evaluate,
}


def _sizes(images: int, batch: int) -> set[int]:
    """How many images there are in one call, of a shard of so many."""
    return {size for size in (min(batch, images), images % batch) if size}


def _batches(context: CellContext, planned: PlannedCell) -> list[int]:
    """How many images there will be in one call of the cell's network: each number once."""
    batch = int(context.plan.spec.sampling["batch"])
    shards = {stop - start for start, stop in context.plan.shards}
    sizes = {size for images in shards for size in _sizes(images, batch)}
    if planned.keys.measure is not None:
        sizes.add(int(context.plan.spec.timing["batch"]))
    return sorted(sizes)


def _check_unseen(context: CellContext, planned: PlannedCell, sizes: Iterable[int]) -> None:
    """What `lower` has checked was for the suite of then; here for batches of this one.

    Raises:
        LoweringError: for a batch of such a size the network is not the state's.
    """
    if planned.execution != "lowered":
        return
    lowered = context.store.open("lower", planned.keys.lower) / "result.json"
    unseen = sorted(set(sizes) - set(json.loads(lowered.read_text())["calls"]["batches"]))
    if not unseen:
        return
    state = context.state(planned)
    assert state is not None
    calls = Agreement(
        context.loaded(planned), state, context.lowered(planned), context.simulated(planned)
    )
    for size in unseen:
        calls.batch(size)


def _write_result(folder: Path, result: Any) -> None:
    (folder / "result.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


@contextmanager
def cell_log(path: Path) -> Iterator[None]:
    """Everything logged under `tfq_bench` goes to the cell's log file while inside.

    Raises:
        StoreError: disk full, no permission.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise store_error(error, path) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("tfq_bench")
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        with suppress(OSError):
            handler.close()


class _LogFile(logging.FileHandler):
    """A log that a full disk cuts short: what is wrong is told by the artefact that fails."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Nothing; logging would print a traceback."""
