"""Numbers of other threads are judged, and whoever reads the verdict is told."""

import json

import pytest
import torch

from tfq_bench.cli import main
from tfq_bench.store.seals import seal

SUITE = """\
schema = 1
suite = {{name = "s", threads = {threads}}}
sampling = {{steps = 2, images = 2, batch = 2, shard = 2}}
calibration = {{images = 1, batch = 1}}
model = [{{name = "tiny"}}]
quantizer = [{{name = "fp"}}, {{name = "rtn", wbits = 8, calibration_steps = 1}}]
backend = [{{name = "simulate"}}]
metric = [{{name = "bits"}}]
"""


@pytest.fixture
def runs(plugin_host, tmp_path, capsys):
    """Run folders of one suite with one thread, with two, and with one again elsewhere."""
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    before = torch.get_num_threads()
    folders = []
    for number, threads in enumerate((1, 2, 1)):
        suite, run = tmp_path / f"{number}.toml", str(tmp_path / str(number))
        suite.write_text(SUITE.format(threads=threads))
        assert 0 == main(["run", str(suite), "--run", run, "--no-report"])
        folders.append(run)
    torch.set_num_threads(before)
    capsys.readouterr()
    return folders


def test_gate_and_compare_tell_of_other_threads(runs, tmp_path, capsys):
    """In every format, once, and without a change of the exit code; never of equal ones."""
    one, two, again = runs
    baseline = str(tmp_path / "b.json")
    files = tmp_path / "g.md", tmp_path / "g.xml"
    assert 0 == main(["baseline", "save", one, "-o", baseline])
    gate = ["--baseline", baseline, "--markdown", str(files[0]), "--junit", str(files[1])]
    for run, told in ((two, 1), (again, 0)):
        said = []
        capsys.readouterr()
        assert 0 == main(["gate", run, *gate])
        said.append(capsys.readouterr().out)
        assert 0 == main(["gate", run, *gate, "--json"])
        said += ["".join(json.loads(capsys.readouterr().out)["remarks"])]
        said += [path.read_text("utf-8") for path in files]
        assert 0 == main(["compare", one, run])
        said.append(capsys.readouterr().out)
        assert 0 == main(["compare", one, run, "--format", "json"])
        captured = capsys.readouterr()
        assert json.loads(captured.out)["schema"] == 1
        said.append(captured.err)
        for text in said:
            assert told == text.count("threads 1")
            assert told == text.count("learned cells may differ by more than")


def test_a_baseline_that_does_not_say_its_threads_is_used(runs, tmp_path, capsys):
    """One of an earlier version: what is not known is not told as a difference."""
    path = tmp_path / "baseline.json"
    assert 0 == main(["baseline", "save", runs[0], "-o", str(path)])
    content = json.loads(path.read_text())
    del content["checksum"]
    for environment in content["environments"].values():
        assert environment.pop("arithmetic")["threads"] == "1"
    path.write_text(json.dumps({**content, "checksum": seal(content)}))
    capsys.readouterr()
    assert 0 == main(["gate", runs[1], "--baseline", str(path)])
    assert "threads" not in capsys.readouterr().out
