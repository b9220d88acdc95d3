"""`tfq-bench doctor` says what runs here, what is missing and why, and never shows a traceback."""

import json
import os
import subprocess
import sys

import pytest

import tfq_bench.plan.diagnosis as diagnosis
from tfq_bench.cli import main
from tfq_bench.plan.suite import load_suite

PLUGIN = """
from tfq_bench import api


class Made:
    def check(self, *, device):
        {check}

    def lower(self, loaded, state):
        raise NotImplementedError
    {more}


@api.hookimpl
def tfq_backends():
    yield api.BackendProvider(name="{name}", summary="", factory=f"{{__name__}}:Made")
"""


@pytest.fixture
def backend(plugin_host):
    """A function that installs a backend whose `check` does this."""

    def install(name, check, more=""):
        source = PLUGIN.format(name=name, check=check, more=more)
        plugin_host.install(name, source, distribution=f"{name}-dist")

    return install


@pytest.fixture
def first(tiny_suite, monkeypatch):
    """The quickstart is a suite of the model `tiny`, and a renderer is there."""
    path = str(tiny_suite(wbits=(8,)))
    monkeypatch.setattr(diagnosis, "load_suite", lambda _: load_suite(path))


@pytest.fixture
def renderer(plugin_host):
    """An HTML renderer, without which a run has no report."""
    source = """
from tfq_bench import api


@api.hookimpl
def tfq_renderers():
    yield api.RendererProvider(name="html", summary="", factory="nowhere:Html")
"""
    plugin_host.install("pages", source, distribution="pages-dist")


@pytest.fixture
def asked(capsys, tmp_path, monkeypatch):
    """A function that calls the command in an empty folder: exit code and findings."""
    monkeypatch.chdir(tmp_path)

    def ask():
        code = main(["doctor", "--json"])
        return code, json.loads(capsys.readouterr().out)

    return ask


def test_a_sound_machine_can_run_the_first_suite(first, renderer, capsys, tmp_path, monkeypatch):
    """In about twenty lines, the last of which is the command to begin with."""
    monkeypatch.chdir(tmp_path)
    assert 0 == main(["doctor"])
    shown = capsys.readouterr().out
    assert "run first   tfq-bench run quickstart" == shown.splitlines()[-1]
    assert "2 cells: 1 full-precision, 1 simulated" in shown
    assert "simulate on cpu: runs" in shown
    assert len(shown.splitlines()) <= 22
    assert max(map(len, shown.splitlines())) <= 100 or str(tmp_path) in shown


def test_facts_for_scripts(first, renderer, asked):
    """Every finding has a field."""
    code, found = asked()
    assert (0, "") == (code, found["obstacle"])
    import torch

    assert torch.__version__ == found["torch"]["version"]
    assert found["machine"]["cores"] >= 1
    assert {"tiny-dist", "pages-dist"} == {one["distribution"] for one in found["plugins"]}
    assert {"full-precision": 1, "simulated": 1} == found["cells"]
    assert found["free"] > 0


def test_variables_that_choose_kernels_are_told(first, renderer, asked, monkeypatch):
    """Who forgot one finds it here."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert "AVX2" == asked()[1]["settings"]["ONEDNN_MAX_CPU_ISA"]


def test_each_backend_says_whether_it_runs(first, renderer, backend, asked):
    """Its own sentence where it does not, and what it says of its kernels where it does."""
    exact = "\n    def exactness(self, *, device):\n        return f'exact on {device}'"
    backend("good", "pass", exact)
    backend("plain", "pass")
    backend("lacking", "raise api.LoweringError('it needs a quantum computer.')")
    backend("rude", "raise SystemExit(3)")
    code, found = asked()
    said = {one["name"]: (one["reason"], one["exactness"]) for one in found["runners"]}
    assert ("", "exact on cpu") == said["good"]
    assert ("", "") == said["plain"]
    assert ("it needs a quantum computer.", "") == said["lacking"]
    assert "cannot say whether it runs here: SystemExit: 3." in said["rude"][0]
    assert 0 == code


def test_gpus_are_told_and_backends_are_asked_on_them(
    first, renderer, capsys, tmp_path, monkeypatch
):
    """What runs on both devices says so."""
    gpu = {"name": "a card", "memory_bytes": 80 << 30, "capability": "9.0", "multiprocessors": 132}
    monkeypatch.setattr(diagnosis, "visible_gpus", lambda: [gpu, gpu])
    monkeypatch.setattr(diagnosis, "gpu_driver", lambda: "NVRM 570.1")
    monkeypatch.chdir(tmp_path)
    assert 0 == main(["doctor"])
    shown = capsys.readouterr().out
    assert "GPU 1       a card, 80 GiB, compute capability 9.0" in shown
    assert "driver      NVRM 570.1" in shown
    assert "simulate on cpu and cuda: runs" in shown


def test_a_plugin_that_cannot_be_used_is_told_with_what_to_do(
    first, renderer, plugin_host, capsys, tmp_path, monkeypatch
):
    """Broken or of another API: the reason, and the way on; the rest is not touched."""
    monkeypatch.chdir(tmp_path)
    plugin_host.install("bad", "import no_such_module", distribution="bad-dist", version="0.3")
    newer = """
from tfq_bench import api


@api.hookimpl
def tfq_backends():
    yield api.BackendProvider(name="late", summary="", factory="nowhere:Late", api=api.API + 1)
"""
    plugin_host.install("newer", newer, distribution="newer-dist")
    assert 0 == main(["doctor"])
    shown = capsys.readouterr()
    words = " ".join(shown.out.split())
    assert "! bad (bad-dist 0.3) is broken" in words
    assert "No module named 'no_such_module'" in words
    assert "Upgrade or reinstall bad-dist, or leave it out: --block bad." in words
    assert "! newer (newer-dist 1.0) is incompatible" in words
    assert "Upgrade tfq-bench." in words
    assert "" == shown.err


def test_files_that_are_missing_are_named(first, renderer, asset_plugin, asked):
    """With what needs them."""
    asset_plugin()
    _, found = asked()
    assert {"name": "weights.bin", "size": 11, "users": ["metric 'sharp'"]} in found["lacking"]


def test_without_what_the_suite_needs_it_cannot_run(plugin_host, renderer, asked):
    """The real quickstart, with nothing but the host installed."""
    code, found = asked()
    assert 1 == code
    assert "no model is called 'cifar10'" in found["obstacle"]


def test_a_folder_that_cannot_be_written_is_an_obstacle(first, renderer, asked, monkeypatch):
    """So is a disk that is full."""
    monkeypatch.setattr(diagnosis, "_free", lambda folder: 0)
    code, found = asked()
    assert 1 == code
    assert "nothing can be written where runs go" in found["obstacle"]
    monkeypatch.setattr(diagnosis, "_free", lambda folder: 1_000_000)
    code, found = asked()
    assert 1 == code
    assert "only 1 MB are free" in found["obstacle"]


def test_free_space_of_a_folder_that_is_not_there_yet(tmp_path):
    """That of the disk it would be on; a file in its place is none."""
    assert diagnosis._free(tmp_path / "runs" / "deeper") > 0
    (tmp_path / "file").write_text("")
    assert 0 == diagnosis._free(tmp_path / "file" / "runs")


TORCHES = {
    "missing": (
        "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')",
        "installed",
    ),
    "broken": ("raise OSError('libtorch_cpu.so: failed to map segment')", "failed to map segment"),
    "empty": ("", "has no attribute 'ones'"),
    "exits": ("raise SystemExit(0)", "SystemExit: 0"),
}


@pytest.mark.parametrize("how", TORCHES)
def test_a_torch_that_does_not_work_is_an_obstacle_in_words(how, tmp_path):
    """In a process of its own; all that needs no torch is said all the same."""
    content, reason = TORCHES[how]
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(content)
    done = subprocess.run(
        [sys.executable, "-m", "tfq_bench", "doctor", "--no-plugins"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    words = " ".join(done.stdout.split())
    assert (1, "") == (done.returncode, done.stderr)
    assert reason in words
    assert "The quickstart cannot run here: torch" in words
    assert "pip install" in words
    assert "simulate on cpu: not here:" in words
