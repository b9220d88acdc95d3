"""The folder in which a quantizer keeps what is finished."""

from types import SimpleNamespace

import pytest

from tfq_bench.pipeline.calibrate import capture
from tfq_bench.pipeline.cell import run_task
from tfq_bench.quant.rtn import RoundToNearest
from tfq_bench.store.artefacts import ArtefactStore
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import Scheme


class Interrupted(RoundToNearest):
    """Keeps a file, and fails when there was none."""

    def quantize(self, loaded, data, *, generator, progress, checkpoint=None):
        kept = checkpoint / "kept"
        if not kept.exists():
            checkpoint.mkdir(parents=True)
            kept.touch()
            raise KeyboardInterrupt
        return super().quantize(loaded, data, generator=generator, progress=progress)


def test_checkpoint_outlives_a_stop_and_not_the_result(tmp_path):
    """The same task finds what it had kept; once the state is stored, nothing of it is left."""
    loaded = load_tiny()
    quantizer = Interrupted(scheme=Scheme(wbits=8, abits=8))
    needs = quantizer.calibration_needs(loaded, images=2)
    data = capture(loaded, needs, seed=0, batch=8, progress=lambda *_: None)
    planned = SimpleNamespace(
        execution="simulated", cell=SimpleNamespace(seed=0, label="a cell"), keys=None
    )
    store = ArtefactStore(tmp_path)
    context = SimpleNamespace(
        store=store,
        plan=SimpleNamespace(find=lambda _: planned),
        quantizer=lambda _: quantizer,
        loaded=lambda _: loaded,
        calibration=lambda _: data,
    )
    task = SimpleNamespace(stage="quantize", cell="cell", shard=None, outputs=("abc123",))
    with pytest.raises(KeyboardInterrupt):
        run_task(context, task, lambda *_: None)
    assert not store.has("quantize", "abc123")
    context.store = ArtefactStore(tmp_path)  # as a new process opens it
    run_task(context, task, lambda *_: None)
    assert context.store.has("quantize", "abc123")
    assert not list(tmp_path.rglob("kept"))
