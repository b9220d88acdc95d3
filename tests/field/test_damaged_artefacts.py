"""Run folders that were damaged, or left by a run that was killed: the same command mends them."""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfq_bench.cli import main
from tfq_bench.errors import StoreError
from tfq_bench.pipeline.evaluate import CACHE
from tfq_bench.store import artefacts, manifest
from tfq_bench.store.run import RunFolder
from tfq_bench.store.scratch import remove_abandoned_scratch, scratch_folder
from tfq_bench.testing.fuzzing import fuzz


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the first finished run is kept."""
    return tmp_path_factory.mktemp("kept") / "good"


@pytest.fixture
def runs(tiny_suite, tmp_path, capsys, kept):
    """A finished run's folder, and a function that runs the suite into a folder."""
    suite = tiny_suite(metrics=("paired", "bits"), images=2, steps=2)

    def run(folder, *more):
        code = main(["run", str(suite), "--run", str(folder), "--no-report", *more])
        return code, capsys.readouterr()

    if not kept.exists():
        assert 0 == run(kept)[0]
    return shutil.copytree(kept, tmp_path / "good"), run


def numbers(folder):
    """What a run found, by label and metric."""
    return {
        (r.label, r.metric.definition.name): r.metric.value
        for r in RunFolder.open(folder).records()
        if r.metric is not None
    }


def files(folder):
    """Every file of every artefact."""
    return sorted(path for path in folder.glob("artefacts/*/*/**/*") if path.is_file())


def flip(path, place):
    """One bit of one byte."""
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)


def truncate(path, place):
    """Cut anywhere."""
    path.write_bytes(path.read_bytes()[: int(place * path.stat().st_size)])


def remove(path, place):
    """Gone."""
    path.unlink()


def link(path, place):
    """A link to the same content elsewhere."""
    other = path.parents[3] / f"elsewhere-{path.name}"
    path.rename(other)
    path.symlink_to(other)


def add(path, place):
    """A file that nobody wrote."""
    (path.parent / "stray").write_text("x")


def swap(path, place):
    """Another artefact of the stage in its place."""
    folder = path.parent
    others = [other for other in folder.parent.iterdir() if other != folder]
    if others:
        shutil.rmtree(folder)
        shutil.copytree(others[0], folder)
    else:
        remove(path, place)


def another_key(path, place):
    """A manifest of something else, with right digests."""
    manifest = path.parent / "manifest.json"
    if manifest.exists():
        content = json.loads(manifest.read_text())
        content["key" if place < 0.5 else "stage"] = "x"
        manifest.write_text(json.dumps(content))
    else:
        flip(path, place)


@fuzz(3, shrink=False)  # seconds each: whole runs; `tox -e fuzz` does 25 times as many
@given(
    st.integers(0, 10**6),
    st.floats(0, 0.999),
    st.sampled_from([flip, truncate, remove, link, add, swap, another_key]),
)
def test_fuzz_damaged_artefacts_are_made_again(runs, number, place, damage):
    """Whatever happened to whichever file: the same command ends with 0 and the same numbers."""
    good, run = runs
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(good, copy)
        found = files(copy)
        damage(found[number % len(found)], place)
        code, told = run(copy)
        assert 0 == code
        assert "Traceback" not in told.err
        assert numbers(good) == numbers(copy)
        for path in files(good):
            same = copy / path.relative_to(good)
            # Features are a cache: made again by the next evaluation that asks for them.
            assert same.is_file() or path.parts[-3] == CACHE
            assert not same.is_symlink()


def exchange(folder, one, other):
    """Two artefacts of a stage, each in the other's place."""
    one.rename(folder / "kept")
    other.rename(one)
    (folder / "kept").rename(other)


def test_two_cells_do_not_exchange_their_images(runs, tmp_path):
    """Swapped folders of one stage are told by their keys; readers refuse them until then."""
    good, run = runs
    before = numbers(good)
    exchange(tmp_path, *sorted((good / "artefacts" / "sample").iterdir())[:2])
    folder = RunFolder.open(good)
    with pytest.raises(Exception, match="holds another artefact: expected sample") as caught:
        folder.images(folder.plan()["cells"][0]["key"])
    assert "'tfq-bench run' removes it and makes it again" in str(caught.value)
    code, told = run(good)
    assert 0 == code
    assert 2 == told.err.count("note: ")
    assert before == numbers(good)


def test_two_cells_do_not_exchange_their_numbers(runs, tmp_path):
    """Swapped values of the metric `paired`, records lost: none is read as the other cell's."""
    good, run = runs
    before = numbers(good)
    plan = RunFolder.open(good).plan()
    number = plan["metrics"].index(next(m for m in plan["metrics"] if m["name"] == "paired"))
    keys = [cell["keys"]["evaluate"][number] for cell in plan["cells"]]
    exchange(tmp_path, *(good / "artefacts" / "evaluate" / key for key in keys[-2:]))
    (good / "records.jsonl").unlink()
    code, told = run(good)
    assert 0 == code
    assert 2 == told.err.count("holds another artefact: expected evaluate")
    assert before == numbers(good)


def test_a_damaged_plan_is_written_anew(runs):
    """`run` says so and goes on; nothing is computed again."""
    good, run = runs
    assert 0 == run(good)[0]  # its plan names the folder of this test's suite
    before = (good / "plan.json").read_bytes()
    stamps = {path: path.stat().st_mtime_ns for path in files(good)}
    for content in (b"", b"{", b"[]", b"\xff\xfe", b'{"schema": null}', b"[" * 10_000):
        (good / "plan.json").write_bytes(content)
        assert 2 == main(["status", str(good)])
        assert 0 == run(good)[0]
        assert before == (good / "plan.json").read_bytes()
    assert stamps == {path: path.stat().st_mtime_ns for path in files(good)}


@pytest.mark.parametrize("left", [(), ("suite.toml",), ("suite.toml", ".plan.json-ab12cd34")])
def test_a_run_that_ended_before_it_had_a_plan(runs, tmp_path, left):
    """Its lock and what it had written are no other files; half-written ones are removed."""
    _, run = runs
    folder = tmp_path / "early"
    folder.mkdir()
    for name in ("run.lock", *left):
        (folder / name).write_text("half")
    assert 0 == run(folder)[0]
    assert not list(folder.glob(".*"))


def test_files_of_others_are_left_alone(runs, tmp_path):
    """A folder with anything else in it, or without the lock, is not taken for a run."""
    _, run = runs
    for names in (("notes.txt",), ("suite.toml",), ("run.lock", "photo.png")):
        folder = tmp_path / names[-1]
        folder.mkdir()
        for name in names:
            (folder / name).write_text("mine")
        code, told = run(folder)
        assert 2 == code
        assert "found other files" in told.err
        assert {"mine"} == {(folder / name).read_text() for name in names}


def test_leftovers_of_killed_runs_are_removed(runs):
    """Half-made artefacts, checkpoints of finished states, half-written files; not open ones."""
    good, run = runs
    (state,) = (
        p.name for p in (good / "artefacts" / "quantize").iterdir() if (p / "state").exists()
    )
    finished, other = (good / "artefacts" / "checkpoints" / name for name in (state, "other"))
    for folder in (finished, other, good / "artefacts" / "lower" / ".new-k-x"):
        folder.mkdir(parents=True)
        (folder / "x").write_text("x")
    (good / ".plan.json-12345678").write_text("{")
    assert 0 == run(good)[0]
    assert not finished.exists()
    assert other.exists()
    assert not list(good.rglob(".new-*"))
    assert not list(good.glob(".*"))


SCRATCH = """
import os, signal, sys
from tfq_bench.store.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "big").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_scratch_of_the_dead_is_removed(tmp_path, monkeypatch):
    """Not that of the living, nor what others call alike."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.run(
        [sys.executable, "-c", SCRATCH], capture_output=True, text=True, timeout=60
    )
    dead = Path(ended.stdout.strip())
    assert (dead / "big").exists()
    mine, data, empty = (
        tmp_path / f"tfq-bench-{name}" for name in ("mydata00", "data", "12345678")
    )
    for folder in (mine, data, empty):
        folder.mkdir()
    (mine / "x").write_text("x")
    (tmp_path / "tfq-bench-abcdefgh").symlink_to(mine)
    with scratch_folder() as alive:
        remove_abandoned_scratch()
        assert alive.exists()
    assert not dead.exists()
    assert (mine / "x").exists()
    assert {"tfq-bench-mydata00", "tfq-bench-data", "tfq-bench-abcdefgh"} == {
        path.name for path in tmp_path.iterdir()
    }


def test_what_a_digest_does_not_tell_is_made_again_too(runs):
    """An environment, which has a name for a checksum, and values whose digests were redone."""
    good, run = runs
    before = numbers(good)
    (environment,) = good.glob("env-*.json")
    content = environment.read_bytes()
    environment.write_bytes(content.replace(b'"cores": ', b'"cores": 1'))
    code, told = run(good)
    assert 0 == code
    assert f"note: {environment.name} is written anew" in told.err
    assert content == environment.read_bytes()
    for text in ("[]", '{"values": null}', '{"values": [{"name": "psnr"}]}'):
        result = next(good.glob("artefacts/evaluate/*/result.json"))
        result.write_text(text)
        manifest = json.loads((result.parent / "manifest.json").read_text())
        digest = hashlib.sha256(text.encode()).hexdigest()
        manifest["files"] = {result.name: {"bytes": len(text), "sha256": digest}}
        (result.parent / "manifest.json").write_text(json.dumps(manifest))
        code, told = run(good)
        assert 0 == code, told.err
        assert 1 == told.err.count("note: ")
        assert before == numbers(good)


def test_no_room_for_scratch_is_a_sentence(monkeypatch):
    """Python finds no temporary folder to write into: nothing to tidy, and no place to work."""

    def refused():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", refused)
    monkeypatch.setattr(tempfile, "tempdir", None)
    remove_abandoned_scratch()
    with pytest.raises(StoreError, match="set TMPDIR to a folder"), scratch_folder():
        pass


@pytest.mark.parametrize("executor", ["inline", "process"])
def test_damage_that_is_seen_when_it_is_read(runs, tmp_path, monkeypatch, executor):
    """Of large files only the size is looked at before: a state of equal size is made again."""
    good, run = runs
    copy = tmp_path / "copy"
    shutil.copytree(good, copy)
    monkeypatch.setattr(artefacts, "_LARGE", 1000)  # a state is
    (state,) = copy.glob("artefacts/quantize/*/state/*.safetensors")
    flip(state, 0.9)
    for sample in copy.glob("artefacts/sample/*"):
        shutil.rmtree(sample)
    code, told = run(copy, "--executor", executor)
    assert 0 == code, told.err
    assert 1 == told.err.count("note: ")
    assert f"'{state}' has changed since it was written: expected SHA-256" in told.err
    assert "It was removed, and is made again" in told.err
    assert numbers(good) == numbers(copy)
    assert state.read_bytes() == (good / state.relative_to(copy)).read_bytes()


def test_an_artefact_that_is_damaged_again_and_again_ends_the_run(runs, tmp_path, monkeypatch):
    """A disk that keeps nothing: the sentence, not a run without end."""
    good, run = runs
    copy = tmp_path / "copy"
    shutil.copytree(good, copy)
    shutil.rmtree(copy / "artefacts" / "evaluate")
    real = manifest.file_digest

    def rotten(path):
        return "0" * 64 if path.name == "images.safetensors" and written(path) else real(path)

    def written(path):
        return not path.parent.name.startswith(".new-")

    monkeypatch.setattr(manifest, "file_digest", rotten)
    code, told = run(copy)
    assert 2 == code
    assert "'tfq-bench run' removes it and makes it again" in told.err
    assert "Traceback" not in told.err
