"""A model has one identity, wherever its folder lies; paths in a suite start at the suite's folder.

The plugin here takes a folder or a name, as those of published models do.
"""

import json
import os
import shutil

import pytest

from tfq_bench.cli import main
from tfq_bench.keys import content_digest

PLUGIN = """
import hashlib
from pathlib import Path

from tfq_bench import api
from tfq_bench.testing.tiny import TinyModel


class Found(TinyModel):
    def __init__(self, *, source):
        super().__init__()
        path = Path(source)
        content = (path / "weights").read_bytes() if path.is_absolute() else b"hub"
        self.digest = hashlib.sha256(content).hexdigest()


@api.hookimpl
def tfq_models():
    yield api.ModelProvider(
        name="found",
        summary="",
        factory=f"{__name__}:Found",
        options=(api.Option(name="source", kind="source", default="", help="Folder or id."),),
    )
"""

SUITE = """\
schema = 1
suite = {name = "field", threads = 1}
sampling = {steps = 2, images = 2, batch = 2, shard = 2}
quantizer = [{name = "fp"}, {name = "rtn", wbits = 8, calibration_steps = 1}]
calibration = {images = 1, batch = 1}
backend = [{name = "simulate"}]
metric = [{name = "paired"}]
"""


@pytest.fixture
def model(plugin_host, tmp_path, monkeypatch):
    """The folder `here`, with a suite and a model in it."""
    plugin_host.install("found", PLUGIN, distribution="found-dist")
    folder = tmp_path / "here"
    (folder / "models" / "net").mkdir(parents=True)
    (folder / "models" / "net" / "weights").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def plan(capsys):
    """A function that writes a suite of these sources into a folder and returns its plan."""

    def show(folder, *sources):
        tables = "".join(f'[[model]]\nname = "found"\nsource = "{one}"\n' for one in sources)
        (folder / "suite.toml").write_text(SUITE + tables)
        capsys.readouterr()
        assert 0 == main(["plan", str(folder / "suite.toml"), "--json"])
        return json.loads(capsys.readouterr().out)

    return show


def identity(found):
    """What runs, baselines and gates tell cells apart by."""
    return [(cell["key"], cell["label"], cell["axes"], cell["keys"]) for cell in found["cells"]]


@pytest.mark.parametrize("way", ["copied", "absolute", "linked", "dotted", "cwd"])
def test_one_model_in_several_places(model, plan, tmp_path, monkeypatch, way):
    """Another path to the same content is the same cell, with the same label."""
    before = plan(model, "models/net")
    there = tmp_path / "there"
    source = "models/net"
    if way == "copied":
        shutil.copytree(model, there)
    else:
        there.mkdir()
        (there / "models").mkdir()
        source = str(model / "models" / "net")
    if way == "linked":
        (there / "models" / "net").symlink_to(model / "models" / "net")
        source = "models/net"
    if way == "dotted":
        source = "../here/./models/../models/net"
    if way == "cwd":
        monkeypatch.chdir("/")
    after = plan(there, source)
    assert identity(before) == identity(after)
    assert str(tmp_path) not in str(identity(after))


def test_other_content_is_another_model(model, plan):
    """Whatever it is called: the key and the axes move."""
    before = plan(model, "models/net")
    (model / "models" / "net" / "weights").write_bytes(b"2")
    after = plan(model, "models/net")
    for one, other in zip(before["cells"], after["cells"], strict=True):
        assert one["axes"] != other["axes"]
        assert one["key"] != other["key"]
        assert one["label"] == other["label"]  # it is the only one


def test_two_models_of_one_folder_name_have_two_labels(model, plan):
    """`a/net` and `b/net`, and a name on the hub: no two cells are called the same."""
    (model / "b" / "net").mkdir(parents=True)
    (model / "b" / "net" / "weights").write_bytes(b"2")
    found = plan(model, "models/net", "b/net", "someone/net")
    for name in ("label", "key"):
        assert 6 == len({cell[name] for cell in found["cells"]})
    assert 6 == len({json.dumps(cell["axes"]) for cell in found["cells"]})


def test_equal_models_are_not_two(model, plan, capsys):
    """A copy in the same suite is refused as the same cell."""
    shutil.copytree(model / "models" / "net", model / "copy")
    with pytest.raises(AssertionError):
        plan(model, "models/net", "copy")
    assert "asks twice for the cell" in capsys.readouterr().err


def test_a_folder_here_that_is_not_in_the_suite_s_folder(model, plan, tmp_path, capsys):
    """It worked from one place and not from another, and is refused with the rule."""
    (tmp_path / "local").mkdir()
    with pytest.raises(AssertionError):
        plan(model, "local")
    assert "where relative paths start" in capsys.readouterr().err


def test_runs_compare_across_places(model, tmp_path, plan, capsys, monkeypatch):
    """A run in one place is gated against a baseline of another, and repeated by hand anywhere."""
    plan(model, "models/net")
    shutil.copytree(model, tmp_path / "there")
    for place in ("here", "there"):
        suite = str(tmp_path / place / "suite.toml")
        assert 0 == main(["run", suite, "--run", str(tmp_path / f"run-{place}"), "--no-report"])
    baseline = str(tmp_path / "baseline.json")
    assert 0 == main(["baseline", "save", str(tmp_path / "run-here"), "-o", baseline])
    capsys.readouterr()
    assert 0 == main(["gate", str(tmp_path / "run-there"), "--baseline", baseline])
    key = json.loads((tmp_path / "run-there" / "plan.json").read_text())["cells"][0]["key"]
    monkeypatch.chdir("/")
    assert 5 == main(["cell", str(tmp_path / "run-there"), key])
    assert "nothing to repeat" in capsys.readouterr().err


def test_links_count_by_what_they_lead_to(tmp_path):
    """A link that is turned is other content, and a copy in its place is not."""
    data = tmp_path / "data"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    data.mkdir()
    (data / "sub").symlink_to(tmp_path / "one")
    before = content_digest(data)
    (data / "sub").unlink()
    (data / "sub").symlink_to(tmp_path / "two")
    assert before != content_digest(data)
    (data / "sub").unlink()
    shutil.copytree(tmp_path / "one", data / "sub")
    assert before == content_digest(data)


@pytest.mark.parametrize("kind", ["dangling", "loop", "pipe", "device"])
def test_what_cannot_be_read_to_its_end_is_refused(tmp_path, kind):
    """A pipe and a device never end; what is not there has no content."""
    data = tmp_path / "data"
    data.mkdir()
    if kind == "pipe":
        os.mkfifo(data / "x")
    else:
        target = {"dangling": "nothing", "loop": str(data), "device": "/dev/zero"}[kind]
        (data / "x").symlink_to(target)
    with pytest.raises(OSError, match=r".") as caught:
        content_digest(data)
    assert caught.value.strerror
