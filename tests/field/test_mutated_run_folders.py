"""Any file below a run folder, mutated: readers answer as before or in words, and `run` mends it.

Files are those that no other test of this kind takes: results of stages, images, states, manifests,
environments. `test_changed_numbers.py` has records, plans, baselines and rules.
"""

import contextlib
import io
import json
import shutil
from hashlib import sha256
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfq_bench.cli import main
from tfq_bench.errors import StoreError
from tfq_bench.store.run import RunFolder
from tfq_bench.testing.fuzzing import changed, damaged, fuzz

ANSWERS = {0, 1, 2, 4, 5}
"""What the exit code of a gate, a comparison or a status may be; 70 and tracebacks are bugs."""


def call(*argv):
    """Exit code, standard output and standard error of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in argv])
    assert "Traceback" not in out.getvalue() + err.getvalue()
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def truth(tiny_suite, tmp_path):
    """A finished run, its baseline, and functions that run the suite and ask the gate."""
    suite = tiny_suite(metrics=("paired", "bits"), images=2, steps=2)
    home, base = tmp_path / "truth", tmp_path / "base.json"

    def run(folder):
        return call("run", suite, "--run", folder, "--no-report")

    def gate(folder):
        return call("gate", folder, "--baseline", base, "--json")[:2]

    assert 0 == run(home)[0]
    assert 0 == call("baseline", "save", home, "-o", base)[0]
    assert 0 == gate(home)[0]
    return SimpleNamespace(home=home, run=run, gate=gate, work=tmp_path)


def files(folder):
    """Every file of every artefact, and the environments."""
    found = [*folder.glob("artefacts/*/*/**/*"), *folder.glob("env-*.json")]
    return sorted(path for path in found if path.is_file())


def numbers(folder):
    """What a run found, by label and metric."""
    return {
        (r.label, r.metric.definition.name): r.metric.value
        for r in RunFolder.open(folder).records()
        if r.metric is not None
    }


def artefact(path):
    """The artefact's folder that a file lies in; None when it lies in none."""
    return next((parent for parent in path.parents if parent.match("artefacts/*/*")), None)


def mutate(data, path):
    """Changes bytes or a field of a file; False when it still says the same."""
    before = path.read_bytes()
    after = data.draw(damaged(before))
    if path.suffix == ".json" and data.draw(st.booleans()):
        after = json.dumps(data.draw(changed(json.loads(before))), indent=1).encode()
    path.write_bytes(after)
    if path.name == "manifest.json" and path.parent == artefact(path):  # its layout is in no digest
        with contextlib.suppress(ValueError):
            return json.loads(after) != json.loads(before)
    return after != before


def read_all(folder):
    """Asks every reader; a refusal is a sentence."""
    for argv in (("status", folder), ("status", folder, "--json"), ("compare", folder)):
        assert call(*argv)[0] in ANSWERS
    run = RunFolder.open(folder)
    for cell in run.plan()["cells"]:
        with contextlib.suppress(StoreError):
            run.images(cell["key"])


@fuzz(12, shrink=False)
@given(data=st.data())
def test_fuzz_any_file_of_a_run(truth, data):
    """The gate's answer stays the original's; one `run` later everything is as it was."""
    copy = truth.work / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(truth.home, copy)
    path = data.draw(st.sampled_from(files(copy)))
    mutated = mutate(data, path)
    code, out = truth.gate(copy)
    assert code in ANSWERS
    assert code != 0 or truth.gate(truth.home) == (code, out)
    read_all(copy)
    code, _, err = truth.run(copy)
    assert 0 == code, err
    assert not mutated or "note: " in err
    assert numbers(truth.home) == numbers(copy)
    assert truth.gate(truth.home) == truth.gate(copy)
    for good in files(truth.home):
        if good.match("features/*/*"):
            continue  # kept for metrics that are yet to come
        same = copy / good.relative_to(truth.home)
        assert same.is_file()
        if good.suffix == ".safetensors" or good.name.startswith("env-"):
            assert good.read_bytes() == same.read_bytes()


@fuzz(6, shrink=False)
@given(data=st.data())
def test_fuzz_results_with_digests_redone(truth, data):
    """Whatever a result or a file of tensors holds, it is taken or it is a sentence."""
    copy = truth.work / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(truth.home, copy)
    chosen = [path for path in files(copy) if path.name != "manifest.json"]
    path = data.draw(st.sampled_from([path for path in chosen if artefact(path)]))
    mutate(data, path)
    reseal(path)
    assert truth.gate(copy)[0] in ANSWERS
    read_all(copy)
    code, _, err = truth.run(copy)
    assert code in (0, 2, 3), err
    read_all(copy)
    assert truth.gate(copy)[0] in ANSWERS


def reseal(path):
    """The manifest of a file's artefact with the file's digest, as a writer would have made it."""
    folder = artefact(path)
    manifest = json.loads((folder / "manifest.json").read_text())
    content = path.read_bytes()
    manifest["files"][path.relative_to(folder).as_posix()] = {
        "bytes": len(content),
        "sha256": sha256(content).hexdigest(),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
