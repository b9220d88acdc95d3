"""`tfq-bench plugins new` writes distributions that work as they are."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tfq_bench.cli import main
from tfq_bench.templates.author_kit import KINDS, PluginNames, marks, rendered

NAMES = {"short": "a", "long": "abcdefghijklmnopqrstuvwxyz-1", "usual": "tfq-bench-mine"}


@pytest.fixture
def author(plugin_host, tmp_path, monkeypatch):
    """A folder that has a plugin of each kind, written by the command: `new-quantizer` and so on.

    Their packages can be imported here and in child processes.
    """
    folder = tmp_path / "author"
    for kind in KINDS:
        assert 0 == main(["plugins", "new", kind, f"new-{kind}", "--into", str(folder)])
    for kind in KINDS:
        source = str(folder / f"new-{kind}" / "src")
        monkeypatch.syspath_prepend(source)
        monkeypatch.setenv("PYTHONPATH", source, prepend=os.pathsep)
    monkeypatch.chdir(folder)
    yield folder
    for name in [name for name in sys.modules if name.startswith("new_")]:
        del sys.modules[name]


def test_their_own_tests_pass(author):
    """Those of all six kinds: contracts, entry points, and what each does."""
    options = ["-q", "-c", os.devnull, "--import-mode=importlib", "-p", "no:cacheprovider"]
    folders = [f"new-{kind}/tests" for kind in KINDS]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--rootdir", ".", *options, *folders],
        capture_output=True,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")},
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    assert re.fullmatch(r"\d+ passed in .*", done.stdout.splitlines()[-1]), done.stdout


SUITE = """\
schema = 1
suite.name = "mine"
sampling = {steps = 2, images = 4, batch = 4, shard = 4}
calibration = {images = 2, batch = 2}
model = [{name = "new-model"}]
quantizer = [{name = "fp"}, {name = "new-quantizer", wbits = 4, abits = 8}]
backend = [{name = "new-backend"}]
metric = [{name = "new-metric", levels = 1}]
"""


def test_a_suite_uses_all_of_them(author, plugin_host):
    """A model, quantizer, backend, metric and executor give a number, and a renderer its row."""
    for kind in KINDS:
        plugin_host.install(f"new-{kind}", f"new_{kind}.plugin", distribution=f"new-{kind}")
    assert [] == [plugin for plugin in plugin_host.discover().plugins if plugin.status != "ok"]
    Path("mine.toml").write_text(SUITE)
    assert 0 == main(["run", "mine.toml", "--executor", "new-executor", "--no-report"])
    assert 0 == main(["report", "runs/mine", "--renderer", "new-renderer", "-o", "mine.md"])
    rows = [line.strip("| ").split(" | ") for line in Path("mine.md").read_text().splitlines()]
    (row,) = [row for row in rows if "new-metric" == row[0]]
    assert ["new-model / new-quantizer W4A8 / new-backend", "4"] == [row[1], row[-1]]
    low, high = map(float, row[3].split(" to "))
    assert 0 < low < float(row[2]) < high


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_every_file_is_sound(kind, name):
    """Code compiles, lines are of the width that pyproject.toml states, three places are marked."""
    files = rendered(PluginNames(kind=kind, distribution=name))
    for path, text in files.items():
        assert "$" not in path + text
        if path.endswith(".py"):
            compile(text, path, "exec")
            assert 100 >= max(map(len, text.splitlines())), path
    assert ["1 of 3", "2 of 3", "3 of 3"] == [mark.text[:6] for mark in marks(files)]
    for mark in marks(files):
        assert f"{mark.text[0]}. `{mark.file}`: {mark.text[8:]}" in files["README.md"]
        assert mark.text in files[mark.file].splitlines()[mark.line - 1]


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_name_what_is_there(kind):
    """Distribution, package and component have the names that follow from NAME."""
    files = rendered(PluginNames(kind=kind, distribution="tfq-bench-mine"))
    found = tomllib.loads(files["pyproject.toml"])
    assert "tfq-bench-mine" == found["project"]["name"]
    assert {"mine": "tfq_bench_mine.plugin"} == found["project"]["entry-points"]["tfq_bench"]
    assert "src/tfq_bench_mine/plugin.py" in files
    required = {re.split(r"[^\w-]", text)[0] for text in found["project"]["dependencies"]}
    code = "".join(text for path, text in files.items() if path.startswith("src/"))
    imported = set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE))
    foreign = imported - set(sys.stdlib_module_names) - {"__future__", "tfq_bench_mine"}
    assert required == {name.replace("_", "-") for name in foreign}


def test_what_to_do_next_is_printed(plugin_host, tmp_path, monkeypatch, capsys):
    """Where to change what, and commands that the command line understands."""
    from tfq_bench.cli import _parse

    monkeypatch.chdir(tmp_path)
    for kind in KINDS:
        assert 0 == main(["plugins", "new", kind, f"new-{kind}"])
        lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
        place = next(line for line in lines if "1 of 3" in line).split()[0]
        file, _, number = place.rpartition(":")
        assert "1 of 3" in Path(file).read_text().splitlines()[int(number) - 1]
        commands = [line.split()[1:] for line in lines if line.startswith("tfq-bench ")]
        assert ["plugins", "init", "run"] == [words[0] for words in commands[:3]]
        for words in commands:
            _parse(words)


def test_a_dry_run_writes_nothing(plugin_host, tmp_path, capsys):
    """It lists what would be written."""
    words = ["plugins", "new", "metric", "new-metric", "--into", str(tmp_path / "here")]
    assert 0 == main([*words, "--dry-run"])
    listed = capsys.readouterr().out.splitlines()
    assert not (tmp_path / "here").exists()
    assert 0 == main(words)
    found = (tmp_path / "here").rglob("*")
    assert sorted(listed) == sorted(str(path) for path in found if path.is_file())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["quantiser", "mine"], "no kind is called 'quantiser'; did you mean 'quantizer'?"),
        (["metric", "My_Metric"], "found 'My_Metric'; did you mean 'my-metric'?"),
        (["metric", "2nd"], "found '2nd'; did you mean 'nd'?"),
        (["metric", "../evil"], "did you mean 'evil'?"),
        (["metric", "m" * 29], "at most 28"),
        (["metric", "tfq-bench-"], "such as 'my-metric'"),
        (["metric", "lambda"], "'lambda' is a word of Python"),
        (["metric", "bits"], "metric 'bits' exists already, of tfq-bench"),
        (["model", "tfq-bench-tiny"], "model 'tiny' exists already, of tiny-dist 1.0"),
        (["metric", "torch"], "the distribution torch"),
        (["metric", "json"], "the package 'json' can be imported already"),
    ],
)
def test_names_that_cannot_be_are_refused(plugin_host, tmp_path, capsys, words, message):
    """With what was expected, and nothing is written."""
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    folder = tmp_path / "here"
    assert 2 == main(["plugins", "new", *words, "--into", str(folder)])
    assert message in capsys.readouterr().err
    assert not folder.exists()


def test_nothing_is_written_over(plugin_host, tmp_path, capsys):
    """An empty folder will do; one that holds something, and a file, are left alone."""
    (tmp_path / "mine").mkdir()
    words = ["plugins", "new", "metric", "mine", "--into", str(tmp_path)]
    assert 0 == main(words)
    before = (tmp_path / "mine" / "README.md").stat()
    assert 2 == main(words)
    assert "is there already, and nothing is written over" in capsys.readouterr().err
    assert before == (tmp_path / "mine" / "README.md").stat()
    (tmp_path / "file").touch()
    assert 2 == main([*words[:3], "file", *words[4:]])
    assert 2 == main([*words[:4], "--into", str(tmp_path / "file")])
    assert "a part of the path is not a folder" in capsys.readouterr().err
