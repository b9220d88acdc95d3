"""After a change the next command computes again what depends on it, and says why."""

import importlib
import json
import re

import numpy as np
import pytest
import torch

from tfq_bench.cli import main
from tfq_bench.errors import AssetError
from tfq_bench.plan.planner import make_plan
from tfq_bench.plan.suite import parse_suite
from tfq_bench.provenance.running_code import RunningCode

from .research import METHOD, METRIC, SUITE, forget


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
