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
from tfq_bench.pipeline.judge import judge
from tfq_bench.pipeline.lower import lowering_facts
from tfq_bench.pipeline.measure import measure
from tfq_bench.pipeline.quantize import quantize
from tfq_bench.pipeline.sample import draw, save_images
from tfq_bench.quant.state.storage import save_state
from tfq_bench.seeds import derive
from tfq_bench.store.disk import explain
from tfq_bench.types.border import CalibrationNeeds

if TYPE_CHECKING:
    from tfq_bench.pipeline.cell_context import Workbench
    from tfq_bench.pipeline.tasks import Task
    from tfq_bench.plan.plan import PlannedCell
    from tfq_bench.protocols import Progress

__all__ = ["cell_log", "run_task"]

log = logging.getLogger("tfq_bench.cell")


def run_task(bench: Workbench, task: Task, progress: Progress) -> None:
    """Runs one task and leaves its artefacts; does nothing when they exist.

    Raises:
        TfqError: what went wrong in words; anything else is a bug in a plugin or in the host.
    """
    if all(bench.store.has(task.stage, key) for key in task.outputs):
        return
    planned = bench.plan.find(task.cell)
    shard = "" if task.shard is None else f", shard {task.shard}"
    log.info("%s%s of %s", task.stage, shard, planned.cell.label)
    _STAGES[task.stage](bench, planned, task, progress)


def _calibrate(bench: Workbench, planned: PlannedCell, task: Task, progress: Progress) -> None:
    loaded = bench.loaded(planned)
    spec = bench.plan.spec.calibration
    needs: CalibrationNeeds = bench.quantizer(planned).calibration_needs(
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
    with bench.store.create("calibrate", task.outputs[0]) as folder:
        save_calibration(data, folder)
        _write_result(folder, {**meter.facts, "samples": int(data.x.shape[0])})


def _quantize(bench: Workbench, planned: PlannedCell, task: Task, progress: Progress) -> None:
    if planned.execution == "full-precision":
        with bench.store.create("quantize", task.outputs[0]) as folder:
            _write_result(folder, {"seconds": 0.0, "calibration_samples": 0})
        return
    checkpoint = bench.store.root / "checkpoints" / task.outputs[0]
    state, facts = quantize(
        bench.quantizer(planned),
        bench.loaded(planned),
        bench.calibration(planned),
        seed=planned.cell.seed,
        progress=progress,
        checkpoint=checkpoint,
    )
    with bench.store.create("quantize", task.outputs[0]) as folder:
        save_state(state, folder / "state")
        _write_result(folder, facts)
    shutil.rmtree(checkpoint, ignore_errors=True)


def _lower(bench: Workbench, planned: PlannedCell, task: Task, progress: Progress) -> None:
    lowered = bench.lowered(planned)
    simulated = bench.simulated(planned) if planned.execution == "lowered" else None
    progress(0.5, "lowering")
    facts = lowering_facts(
        bench.loaded(planned),
        bench.state(planned),
        lowered,
        simulated,
        execution=planned.execution,
        batches=_batches(bench, planned),
    )
    with bench.store.create("lower", task.outputs[0]) as folder:
        _write_result(folder, facts)


def _sample(bench: Workbench, planned: PlannedCell, task: Task, progress: Progress) -> None:
    assert task.shard is not None
    spec = bench.plan.spec.sampling
    indices = range(*bench.plan.shards[task.shard])
    _check_unseen(bench, planned, _sizes(len(indices), int(spec["batch"])))
    images = draw(
        bench.loaded(planned),
        bench.lowered(planned),
        indices,
        seed=int(spec["seed"]),
        batch=int(spec["batch"]),
        progress=progress,
    )
    with bench.store.create("sample", task.outputs[0]) as folder:
        save_images(images, indices, folder)


def _measure(bench: Workbench, planned: PlannedCell, task: Task, progress: Progress) -> None:
    spec = bench.plan.spec.timing
    _check_unseen(bench, planned, {int(spec["batch"])})
    progress(0.0, "timing")
    facts = measure(
        bench.loaded(planned),
        bench.lowered(planned),
        batch=int(spec["batch"]),
        warmup=int(spec["warmup"]),
        rounds=int(spec["rounds"]),
    )
    with bench.store.create("measure", task.outputs[0]) as folder:
        _write_result(folder, facts)


def _evaluate(bench: Workbench, planned: PlannedCell, task: Task, progress: Progress) -> None:
    judge(bench, planned, task.outputs, progress)


_STAGES: dict[str, Callable[[Workbench, PlannedCell, Task, Progress], None]] = {
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


def _batches(bench: Workbench, planned: PlannedCell) -> list[int]:
    """How many images there will be in one call of the cell's network: each number once."""
    batch = int(bench.plan.spec.sampling["batch"])
    shards = {stop - start for start, stop in bench.plan.shards}
    sizes = {size for images in shards for size in _sizes(images, batch)}
    if planned.keys.measure is not None:
        sizes.add(int(bench.plan.spec.timing["batch"]))
    return sorted(sizes)


def _check_unseen(bench: Workbench, planned: PlannedCell, sizes: Iterable[int]) -> None:
    """What `lower` has checked was for the suite of then; here for batches of this one.

    Raises:
        LoweringError: for a batch of such a size the network is not the state's.
    """
    if planned.execution != "lowered":
        return
    lowered = bench.store.open("lower", planned.keys.lower) / "result.json"
    unseen = sorted(set(sizes) - set(json.loads(lowered.read_text())["calls"]["batches"]))
    if not unseen:
        return
    state = bench.state(planned)
    assert state is not None
    calls = Agreement(
        bench.loaded(planned), state, bench.lowered(planned), bench.simulated(planned)
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
        raise explain(error, path) from error
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
