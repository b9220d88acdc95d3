"""What a result depends on moves its key, nothing else does.

Each test changes one thing in a research project and asks the plan.
"""

import json
import os

import pytest

from tfq_bench.plan.planner import make_plan
from tfq_bench.plan.suite import parse_suite
from tfq_bench.provenance import environment

from .research import METRIC, SUITE


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


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"])
def test_where_a_task_was_placed_does_not_count(project, keys, monkeypatch, name):
    """Code may read which GPUs it sees; what one of them computes, another of its name does too."""
    (project / "ranges.py").write_text(f"import os\nSTEPS = 1\nGPU = os.environ.get('{name}')\n")
    monkeypatch.delenv(name, raising=False)
    before = keys()
    monkeypatch.setenv(name, "1")
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
