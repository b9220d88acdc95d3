"""A stored result is what would be computed now: what it depends on moves its key, nothing else.

Each test makes a research project as people have them, changes one thing, and asks the plan.
"""

import importlib
import json
import os
import re
import shutil
import sys

import numpy as np
import pytest
import torch

from tfq_bench.cli import main
from tfq_bench.errors import AssetError, StoreError
from tfq_bench.plan.planner import make_plan
from tfq_bench.plan.suite import Entry, parse_suite
from tfq_bench.provenance import environment
from tfq_bench.provenance.running_code import RunningCode

SUITE = """\
schema = 1
suite = {name = "field", threads = 1}
sampling = {steps = 2, images = 2, batch = 2, shard = 2}
calibration = {images = 1, batch = 1}
model = [{name = "tiny"}]
quantizer = [{name = "fp"}, {name = "mine", wbits = 8, abits = 8}]
backend = [{name = "simulate"}]
metric = [{name = "bits"}, {name = "mean"}]
"""

WRAPPER = """
from tfq_bench import api

@api.hookimpl
def tfq_quantizers():
    yield api.QuantizerProvider(name="mine", summary="", factory="research.method:Mine")

@api.hookimpl
def tfq_metrics():
    yield api.MetricProvider(name="mean", summary="", factory="research.metric:Mean")
"""

METHOD = """
import os
from typing import TYPE_CHECKING

from research.ranges import STEPS
from tfq_bench.quant import RoundToNearest

if TYPE_CHECKING:
    from research.annotations import Nothing


class Mine(RoundToNearest):
    def __init__(self, *, scheme):
        super().__init__(scheme=scheme, calibration_steps=STEPS)
"""

METRIC = """
from tfq_bench import api

DEFINITION = api.MetricDefinition(
    name="mean", unit="", direction="none", summary="Mean pixel.", parameters={}
)


class Mean:
    def evaluate(self, inputs):
        value = float(inputs.images.mean())
        return (api.MetricValue(definition=DEFINITION, value=value, n=len(inputs.images)),)
"""


@pytest.fixture
def project(plugin_host, tmp_path, monkeypatch):
    """A project of which the entry point is one module and the code another package."""
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    sources = tmp_path / "sources"
    package = sources / "research"
    package.mkdir(parents=True)
    for name, text in {
        "__init__": "",
        "method": METHOD,
        "metric": METRIC,
        "ranges": "STEPS = 1\n",
        "annotations": "Nothing = None\n",
        "unused": "",
    }.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(sources))
    monkeypatch.setenv("PYTHONPATH", f"{sources}{os.pathsep}{os.environ['PYTHONPATH']}")
    plugin_host.install("my_wrapper", WRAPPER, distribution="my-dist")
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] in ("research", "beside")]:
        del sys.modules[name]


@pytest.fixture
def keys(plugin_host, tmp_path):
    """A function that plans the suite and returns the quantized cell's keys by stage."""

    def plan(suite=SUITE, folder=tmp_path):
        importlib.invalidate_caches()
        found = make_plan(parse_suite(suite, "field.toml", folder), plugin_host.discover())
        cell = found.cells[-1].keys
        one, other = cell.evaluate[:2]
        return {"quantize": cell.quantize, "sample": cell.sample, "bits": one, "mean": other}

    return plan


def moved(before, after):
    """Which of the keys differ."""
    return {name for name in before if before[name] != after[name]}


ALL = {"quantize", "sample", "bits", "mean"}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("method.py", ALL),  # the factory, in another package than the entry point
        ("ranges.py", ALL),  # what it imports
        ("__init__.py", ALL),  # what runs before it
        ("metric.py", {"mean"}),  # a metric's code leaves the quantizer alone
        ("unused.py", set()),
        ("annotations.py", set()),  # imported for type checkers only
    ],
)
def test_an_edit_moves_what_depends_on_the_file(project, keys, file, expected):
    """Whatever the factory imports counts, wherever it lies; the rest of a package does not."""
    before = keys()
    path = project / file
    path.write_text(path.read_text() + "# edited\n")
    assert expected == moved(before, keys())


def test_a_new_metric_file_moves_nothing_but_itself(project, keys):
    """A distribution that gains a file keeps the results of all that does not import it."""
    before = keys()
    (project / "other_metric.py").write_text(METRIC)
    assert set() == moved(before, keys())


@pytest.mark.parametrize(
    "line",
    [
        "import beside.helper",
        "from beside import helper",
        "def later():\n    from beside.helper import f",
        "import importlib\nimportlib.import_module('beside.helper')",
        "NAME = 'beside.helper'\nload = lambda: __import__(NAME)",
        "from importlib import import_module as get\nTABLE = {'h': 'beside.helper:f'}",
    ],
)
def test_helpers_beside_the_package_count(project, keys, line):
    """A sibling on the path that no distribution owns, imported in any of the usual ways."""
    helper = project.parent / "beside"
    helper.mkdir()
    for name in ("__init__", "helper"):
        (helper / f"{name}.py").write_text("f = 1\n")
    (project / "ranges.py").write_text(f"STEPS = 1\n{line}\n")
    before = keys()
    (helper / "helper.py").write_text("f = 2\n")
    assert moved(before, keys()) == ALL


def test_dynamic_imports_count_the_whole_package(project, keys):
    """What is imported by a name that no text says may be any module of the package."""
    (project / "ranges.py").write_text(
        "import importlib\nSTEPS = 1\n"
        "load = lambda name: importlib.import_module(f'{__package__}.{name}')\n"
    )
    before = keys()
    (project / "unused.py").write_text("x = 1\n")
    assert moved(before, keys()) == ALL


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("from pathlib import Path\nTABLE = Path(__file__).parent / 'table.json'", "table.json"),
        ("import os\nDATA = os.path.join(os.path.dirname(__file__), 'csrc', 'k.cu')", "csrc/k.cu"),
        ("from importlib import resources\nD = resources.files('research') / 'csrc'", "csrc/k.cu"),
        ("import pkgutil\nD = pkgutil.get_data(__name__, 'table.json')", "table.json"),
    ],
)
def test_files_that_code_reads_beside_itself_count(project, keys, line, file):
    """A table or a kernel's source in the package is part of the code that reads it."""
    (project / "csrc").mkdir()
    for name in ("table.json", "csrc/k.cu"):
        (project / name).write_text("1")
    (project / "ranges.py").write_text(f"STEPS = 1\n{line}\n")
    before = keys()
    (project / file).write_text("2")
    assert moved(before, keys()) == ALL


@pytest.mark.parametrize("read", ["environ['MY_ALPHA']", "environ.get('MY_ALPHA')"])
def test_settings_that_code_reads_count(project, keys, monkeypatch, read):
    """An environment variable is an option by another door; its value is not written down."""
    (project / "ranges.py").write_text(f"import os\nSTEPS = 1\nALPHA = lambda: os.{read}\n")
    before = keys()
    monkeypatch.setenv("MY_ALPHA", "hush")
    assert moved(before, keys()) == ALL
    monkeypatch.delenv("MY_ALPHA")
    monkeypatch.setenv("ANOTHER", "1")
    assert moved(before, keys()) == set()


def library(folder, version, body="x = 1\n", origin=None):
    """Installs a library into a folder, as pip leaves it."""
    info = folder / f"somelib-{version}.dist-info"
    for old in folder.glob("somelib-*.dist-info"):
        old.rename(info)
    info.mkdir(exist_ok=True)
    (folder / "somelib").mkdir(exist_ok=True)
    (folder / "somelib" / "__init__.py").write_text(body)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: somelib\nVersion: {version}\n")
    (info / "RECORD").write_text(f"somelib/__init__.py,,\n{info.name}/METADATA,,\n")
    if origin is not None:
        (info / "direct_url.json").write_text(json.dumps(origin))


@pytest.mark.parametrize(
    ("version", "body", "origin", "expected"),
    [
        ("1.1", "x = 1\n", None, ALL),  # an upgrade
        ("1.0", "x = 2\n", None, set()),  # an index's version stands for its code
        ("1.0", "x = 2\n", {"url": "file:///s", "dir_info": {}}, ALL),  # `pip install ../somelib`
        ("1.0", "x = 2\n", {"url": "git+x", "vcs_info": {"commit_id": "1"}}, ALL),
    ],
)
def test_libraries_count_by_their_version(project, keys, tmp_path, monkeypatch, version, body,
                                          origin, expected):  # fmt: skip
    """Where that says anything; what was copied from a folder counts by its files."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    library(site, "1.0", origin=origin)
    (project / "ranges.py").write_text("import somelib\nSTEPS = 1\n")
    before = keys()
    library(site, version, body, origin)
    os.utime(site, ns=(1, 1))
    assert moved(before, keys()) == expected


def test_direct_requirements_count(project, keys, plugin_host):
    """A library that only another library imports counts when the distribution asks for it."""
    before = keys()
    (info,) = plugin_host.folder.glob("my_dist-*.dist-info")
    metadata = (info / "METADATA").read_text()
    (info / "METADATA").write_text(metadata + "Requires-Dist: scipy>=1\n")
    assert moved(before, keys()) == ALL


def test_torch_counts_everywhere(project, keys, monkeypatch):
    """Another torch computes other numbers, in full precision too."""
    from tfq_bench.provenance import import_walk

    version = import_walk.version_of
    before = keys()

    def newer(one):
        name, found = version(one)
        return name, "9.9" if name == "torch" else found

    monkeypatch.setattr(import_walk, "version_of", newer)
    assert moved(before, keys()) == ALL


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"flags": "avx2 avx512f avx512_vnni"}, ALL),
        ({"vendor_id": "GenuineIntel"}, ALL),
        ({"model name": "another of the family"}, set()),
    ],
)
def test_kernels_count(project, keys, monkeypatch, fields, expected):
    """Libraries choose kernels by vendor and instruction sets, and kernels round their own way."""
    known = {"vendor_id": "AuthenticAMD", "flags": "avx2", "model name": "EPYC"}
    monkeypatch.setattr(environment, "_cpuinfo", lambda: known)
    before = keys()
    monkeypatch.setattr(environment, "_cpuinfo", lambda: {**known, **fields})
    assert expected == moved(before, keys())


@pytest.mark.parametrize("name", environment.ARITHMETIC_SETTINGS)
def test_settings_of_arithmetic_count(project, keys, monkeypatch, name):
    """TF32, bfloat16 inside of float32 and other instruction sets are other results."""
    monkeypatch.delenv(name, raising=False)
    before = keys()
    monkeypatch.setenv(name, "1")
    assert moved(before, keys()) == ALL


def test_timings_are_those_of_one_machine(project, plugin_host, tmp_path, monkeypatch):
    """Another processor of one kind times again, and computes nothing else again."""
    known = environment._cpuinfo()
    suite = parse_suite(SUITE.replace('"bits"', '"timing"'), "field.toml", tmp_path)

    def full():
        return make_plan(suite, plugin_host.discover()).cells[0].keys

    before = full()
    monkeypatch.setattr(environment, "_cpuinfo", lambda: {**known, "model name": "another"})
    after = full()
    assert before.measure != after.measure
    assert before.evaluate[0] != after.evaluate[0]
    assert (before.sample, before.evaluate[1]) == (after.sample, after.evaluate[1])


def test_what_changed_is_said(project, tmp_path, capsys, monkeypatch):
    """`plan` and `run` name the reason and count the tasks; what does not depend on it stays."""
    (tmp_path / "field.toml").write_text(SUITE)
    arguments = [str(tmp_path / "field.toml"), "--run", str(tmp_path / "run")]
    assert 0 == main(["run", *arguments, "--no-report"])
    capsys.readouterr()

    def planned():
        importlib.invalidate_caches()
        assert 0 == main(["plan", *arguments])
        return capsys.readouterr().out

    assert "9 of 9 tasks are finished" in planned()
    assert "again" not in planned()
    edited = (project / "metric.py").read_text()
    (project / "metric.py").write_text(edited + "# edited\n")
    assert "2 tasks are done again: code of research changed." in planned()
    (project / "metric.py").write_text(edited)
    (project / "method.py").write_text(METHOD + "# edited\n")
    text = planned()
    assert "5 tasks are done again: code of research changed." in text
    assert "4 of 9 tasks are finished" in text
    (tmp_path / "field.toml").write_text(SUITE.replace("steps = 2", "steps = 3"))
    text = planned()
    assert "code of research changed; suite: " not in text
    assert "sampling.steps 2 -> 3" in text
    (tmp_path / "field.toml").write_text(SUITE)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    assert 0 == main(["run", *arguments, "--no-report"])
    text = capsys.readouterr().out
    assert "5 tasks are done again: NVIDIA_TF32_OVERRIDE none -> 1; code of research" in text
    assert "4 tasks are done again: NVIDIA_TF32_OVERRIDE none -> 1." in text


def forget(package):
    """What a new process would not have: modules of a package as they were before an edit."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.mark.parametrize("file", ["metric.py", "method.py"])
def test_an_edit_reaches_the_gate(project, tmp_path, capsys, file):
    """The same command computes again, `plan` says why, and a gate sees the new number.

    The package is installed with `pip install -e`, its entry point in another module.
    """
    info = project.parent / "research-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: research\nVersion: 1.0\n")
    (info / "RECORD").write_text("__editable__.research.pth,,\nresearch/__init__.py,,\n")
    origin = {"url": f"file://{project.parent}", "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(origin))
    metric = METRIC.replace('direction="none"', 'direction="lower"')
    (project / "metric.py").write_text(metric)
    suite, run, baseline = (str(tmp_path / name) for name in ("field.toml", "run", "b.json"))
    (tmp_path / "field.toml").write_text(SUITE)
    command = ["run", suite, "--run", run, "--no-report"]
    assert 0 == main(command)
    assert 0 == main(["baseline", "save", run, "-o", baseline])
    before = (project / file).read_text()
    edited = {
        "metric.py": before.replace("images.mean()", "images.mean() + 50"),
        "method.py": before.replace("=STEPS", "=STEPS, symmetric_weights=False"),
    }[file]
    (project / file).write_text(edited)
    forget("research")
    capsys.readouterr()
    assert 0 == main(["plan", suite, "--run", run])
    assert "done again: code of research changed." in capsys.readouterr().out
    assert 0 == main(command)
    capsys.readouterr()
    code = main(["gate", run, "--baseline", baseline, "--json"])
    verdicts = json.loads(capsys.readouterr().out)["verdicts"]
    moved = [v for v in verdicts if v["metric"] == "mean" and v["value"] != v["baseline"]]
    cells = {"metric.py": 2, "method.py": 1}[file]  # full precision has no method
    assert len(moved) == cells
    if file == "metric.py":
        assert code == 1
        assert {"regressed"} == {v["outcome"] for v in moved}
    (project / file).write_text(before)
    forget("research")
    assert 0 == main(command)
    assert 0 == main(["gate", run, "--baseline", baseline])


def test_an_upgrade_of_a_library_computes_again_and_says_so(project, tmp_path, capsys, monkeypatch):
    """A library that only one method uses: its cells, by name and versions, and no others."""
    from tfq_bench.provenance import import_walk

    (project / "ranges.py").write_text("import scipy\nSTEPS = 1\n")
    (tmp_path / "field.toml").write_text(SUITE)
    arguments = [str(tmp_path / "field.toml"), "--run", str(tmp_path / "run")]
    assert 0 == main(["run", *arguments, "--no-report"])
    version = import_walk.version_of

    def newer(one):
        name, found = version(one)
        return name, "9.9" if name == "scipy" else found

    monkeypatch.setattr(import_walk, "version_of", newer)
    capsys.readouterr()
    assert 0 == main(["plan", *arguments])
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if "done again" in line]
    assert line.startswith("5 tasks are done again: ")
    assert re.search(r"scipy \S+ -> 9\.9", line)
    assert 0 == main(["run", *arguments, "--no-report"])
    assert "5 tasks are done again" in capsys.readouterr().out
    assert 0 == main(["plan", *arguments])
    assert "9 of 9 tasks are finished" in capsys.readouterr().out


def test_one_more_metric_is_evaluated_alone(project, tmp_path, monkeypatch):
    """Metrics that are finished keep their artefacts; a task counts once per cell."""
    suite = tmp_path / "field.toml"
    suite.write_text(SUITE.replace(', {name = "mean"}', ""))
    arguments = [str(suite), "--run", str(tmp_path / "run"), "--no-report"]
    assert 0 == main(["run", *arguments])
    folder = tmp_path / "run" / "artefacts" / "evaluate"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    suite.write_text(SUITE)
    assert 0 == main(["run", *arguments])
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert before.items() <= after.items()
    assert len(after) > len(before)


def test_a_worker_that_would_compute_otherwise_says_what_moved(project, tmp_path, capsys):
    """Code that changed after planning stops a worker, with the reason."""
    (tmp_path / "field.toml").write_text(SUITE)
    run = tmp_path / "run"
    assert 0 == main(["run", str(tmp_path / "field.toml"), "--run", str(run), "--no-report"])
    (project / "method.py").write_text(METHOD + "# edited\n")
    key = json.loads((run / "plan.json").read_text())["cells"][-1]["key"]
    capsys.readouterr()
    assert 2 == main(["cell", str(run), key])
    assert "(code of research changed)" in capsys.readouterr().err


def test_cached_features_are_those_of_the_extractor_that_runs(tmp_path, monkeypatch):
    """What metrics share is stored under the code of the class that computed it."""
    from tfq_bench.pipeline.evaluate import _modules

    class Extractor:
        def features(self):
            return self

    Extractor.__module__ = "my_extractors"
    extractor = Extractor()
    assert {__name__, "my_extractors"} == _modules(lambda: extractor.features())


def test_cached_features_read_no_source_of_the_library_of_an_array():
    """Images are data: NumPy counts by its version, like every library, not file by file."""
    from tfq_bench.pipeline.evaluate import _modules

    images, labels = np.zeros(2), torch.zeros(2)
    modules = _modules(lambda: (images, labels))
    assert {__name__} == modules
    facts = RunningCode().facts({"tfq_bench.pipeline.evaluate"})
    assert np.__version__ == facts["version of numpy"]
    assert "code of numpy" not in facts


def test_a_pinned_file_with_other_bytes_is_refused(asset_plugin, asset_folder, plugin_host):
    """Its pin stands for its content in keys, so that other content must not go by it."""
    content = asset_plugin()
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    suite = SUITE.replace('"mean"', '"sharp"').replace('"mine"', '"rtn"')
    spec = parse_suite(suite, "field.toml", asset_folder)
    asset_folder.mkdir()
    (asset_folder / "weights.bin").write_bytes(content)
    make_plan(spec, plugin_host.discover())
    (asset_folder / "weights.bin").write_bytes(content[::-1])
    with pytest.raises(AssetError, match="is not the sharp weights: expected the SHA-256"):
        make_plan(spec, plugin_host.discover())


@pytest.mark.parametrize("file", ["method.py", "unused.py"])
def test_code_that_is_edited_while_a_run_goes_on(project, tmp_path, capsys, monkeypatch, file):
    """What was made after the edit is not stored under the keys of the code before."""
    from tfq_bench.pipeline import cell as stages

    (tmp_path / "field.toml").write_text(SUITE)
    arguments = ["run", str(tmp_path / "field.toml"), "--run", str(tmp_path / "run"), "--no-report"]
    calibrate = stages._STAGES["calibrate"]

    def edited(*given):
        (project / file).write_text((project / file).read_text() + "# edited\n")
        return calibrate(*given)

    with monkeypatch.context() as patch:
        patch.setitem(stages._STAGES, "calibrate", edited)
        code = main(arguments)
    if file == "unused.py":
        assert 0 == code
        return
    assert 2 == code
    assert f"'{project / file}' was edited after the run was planned" in capsys.readouterr().err
    assert [] == list((tmp_path / "run" / "artefacts").glob("calibrate/*"))
    importlib.invalidate_caches()
    assert 0 == main(arguments)


CHECKPOINT = """
import hashlib
from pathlib import Path

from tfq_bench import api
from tfq_bench.testing.tiny import TinyModel


class Checkpoint(TinyModel):
    def __init__(self, *, file):
        super().__init__()
        self.digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()


@api.hookimpl
def tfq_models():
    yield api.ModelProvider(
        name="tiny",
        summary="",
        factory=f"{__name__}:Checkpoint",
        options=(api.Option(name="file", kind="source", default="", help="Weights."),),
    )
"""


def test_weights_that_are_replaced_while_a_run_goes_on(plugin_host, tmp_path, capsys, monkeypatch):
    """As by a training that saves: nothing of the new ones is stored under the old one's keys."""
    from tfq_bench.pipeline import cell as stages

    plugin_host.install("checkpoint", CHECKPOINT, distribution="checkpoint-dist")
    weights, suite = tmp_path / "weights", tmp_path / "field.toml"
    weights.write_bytes(b"1")
    text = SUITE.replace('name = "tiny"', f'name = "tiny", file = "{weights}"')
    text = text.replace(', {name = "mine", wbits = 8, abits = 8}', "")
    suite.write_text(text.replace(', {name = "mean"}', ""))
    arguments = ["run", str(suite), "--run", str(tmp_path / "run"), "--no-report"]
    lower = stages._STAGES["lower"]

    def replaced(*given):
        weights.write_bytes(b"2")
        return lower(*given)

    with monkeypatch.context() as patch:
        patch.setitem(stages._STAGES, "lower", replaced)
        assert 2 == main(arguments)
    assert "model 'tiny' is another than when the run was planned" in capsys.readouterr().err
    assert [] == list((tmp_path / "run" / "artefacts").glob("lower/*"))
    assert 0 == main(arguments)


READER = """
from pathlib import Path

from tfq_bench import api
from tfq_bench.quant import RoundToNearest

DEFINITION = api.MetricDefinition(name="read", unit="", direction="none", summary="")


def seen(path):
    path = Path(path)
    return len((path / "part" if path.is_dir() else path).read_text())


class Rounding(RoundToNearest):
    def __init__(self, *, scheme, file):
        super().__init__(scheme=scheme, calibration_steps=1)
        self.file = file

    def quantize(self, *given, **more):
        seen(self.file)
        return super().quantize(*given, **more)


class Reader:
    names = ("read",)

    def __init__(self, *, file):
        self.file = file

    def evaluate(self, inputs):
        return (api.MetricValue(definition=DEFINITION, value=seen(self.file), n=2),)


FILE = (api.Option(name="file", kind="path", default="", help="A file or folder."),)


@api.hookimpl
def tfq_metrics():
    yield api.MetricProvider(name="read", summary="", factory=f"{__name__}:Reader", options=FILE)


@api.hookimpl
def tfq_quantizers():
    yield api.QuantizerProvider(
        name="mine", summary="", factory=f"{__name__}:Rounding", options=FILE
    )
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("stage", ["quantize", "evaluate"])
def test_files_of_options_that_are_replaced_while_a_run_goes_on(
    plugin_host, tmp_path, capsys, monkeypatch, stage, kind
):
    """A quantizer's table, a metric's reference: nothing read of the new one is stored."""
    from tfq_bench.pipeline import cell as stages

    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    plugin_host.install("reader", READER, distribution="reader-dist")
    given, suite = tmp_path / "given", tmp_path / "field.toml"
    file = given
    if kind == "folder":
        given.mkdir()
        file = given / "part"
    file.write_text("1")
    method = ', file = "given"' if stage == "quantize" else f', file = "{suite}"'
    metric = ', file = "given"' if stage == "evaluate" else f', file = "{suite}"'
    text = SUITE.replace('"mine"', f'"mine"{method}').replace('"mean"', f'"read"{metric}')
    suite.write_text(text)
    run = tmp_path / "run"
    arguments = ["run", str(suite), "--run", str(run), "--no-report"]
    original = stages._STAGES[stage]

    def replaced(*given):
        file.write_text("22")
        original(*given)

    with monkeypatch.context() as patch:
        patch.setitem(stages._STAGES, stage, replaced)
        assert 2 == main(arguments)
    assert f"'{file}' was edited after the run was planned" in capsys.readouterr().err
    assert [] == list((run / "artefacts").glob(f"{stage}/*"))
    file.write_text("1")
    assert 0 == main(arguments)


@pytest.mark.parametrize("change", ["edited", "more", "fewer", "gone", "nested"])
def test_files_that_options_name_are_looked_at_again(small_plan, tmp_path, change):
    """Whatever becomes of a file, or of a folder and what is in it."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for name in ("file", "folder/1", "folder/sub/2"):
        (tmp_path / name).write_text("1")
    given = {"file": "file"}, {"file": "folder", "label": "second"}
    plan = small_plan(metrics=tuple(Entry(name="score", given=one) for one in given))
    plan.check_code()
    (folder / "1").touch()
    plan.check_code()
    if change == "edited":
        (tmp_path / "file").write_text("22")
    elif change == "more":
        (folder / "sub" / "3").write_text("1")
    elif change == "fewer":
        (folder / "1").unlink()
    elif change == "gone":
        shutil.rmtree(folder)
    else:
        (folder / "sub" / "2").write_text("2")
    with pytest.raises(StoreError, match=r"' was edited after the run"):
        plan.check_code()


def test_fetched_files_are_looked_at_again(asset_plugin, asset_folder, plugin_host):
    """A pin holds when the run is planned; the file is read when a metric needs it."""
    content = asset_plugin()
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    suite = SUITE.replace('"mean"', '"sharp"').replace('"mine"', '"rtn"')
    asset_folder.mkdir()
    (asset_folder / "weights.bin").write_bytes(content)
    plan = make_plan(parse_suite(suite, "field.toml", asset_folder), plugin_host.discover())
    plan.check_code()
    (asset_folder / "weights.bin").write_bytes(content[::-1])
    with pytest.raises(StoreError, match=r"weights.bin' was edited after the run"):
        plan.check_code()


def test_a_touch_is_no_edit(project, plugin_host, tmp_path):
    """Saving a file without a change does not stop a run."""
    plan = make_plan(parse_suite(SUITE, "field.toml", tmp_path), plugin_host.discover())
    os.utime(project / "method.py", ns=(1, 1))
    plan.check_code()
    (project / "method.py").unlink()
    with pytest.raises(StoreError, match="was edited"):
        plan.check_code()
