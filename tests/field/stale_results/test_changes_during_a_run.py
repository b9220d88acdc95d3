"""Files that change while a run goes on: nothing of the new ones is stored under the old keys."""

import importlib
import os
import shutil

import pytest

from tfq_bench.cli import main
from tfq_bench.errors import StoreError
from tfq_bench.plan.planner import make_plan
from tfq_bench.plan.suite import Entry, parse_suite

from .research import SUITE


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
