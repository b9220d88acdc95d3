"""Numbers whose metric was set otherwise, or is another's, are never held against each other.

Definitions say what a plugin's author thought of; the host adds the metric and its options.
"""

import json
import shutil

import pytest

from tfq_bench.cli import main
from tfq_bench.store.seals import seal

METRIC = """
from pathlib import Path

from tfq_bench import api


class Mine:
    names = ("score",)

    def __init__(self, *, scale, table, batch):
        self.value = scale + (len(Path(table).read_text()) if table else 0)

    def evaluate(self, inputs):
        definition = api.MetricDefinition(
            name="score", unit="", direction="higher", summary=""
        )
        return (api.MetricValue(definition=definition, value=self.value, n=2),)


@api.hookimpl
def tfq_metrics():
    yield api.MetricProvider(
        name="NAME",
        summary="",
        factory=__name__ + ":Mine",
        options=(
            api.Option(name="scale", kind="float", default=1.0, help="Factor."),
            api.Option(name="table", kind="path", default="", help="A file."),
            api.Option(name="batch", kind="int", default=1, help="Speed.", in_definition=True),
        ),
    )
"""

SUITE = """\
schema = 1
suite = {{name = "s", threads = 1}}
sampling = {{steps = 2, images = 2, batch = 2, shard = 2}}
model = [{{name = "tiny"}}]
quantizer = [{{name = "fp"}}]
metric = [{{name = "mine"{options}}}]
"""


@pytest.fixture
def run_suite(plugin_host, tmp_path, capsys):
    """A function that runs the suite with these options of its metric and returns the folder."""
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    plugin_host.install("mine", METRIC.replace("NAME", "mine"), distribution="mine-dist")
    (tmp_path / "table").write_text("1")

    def run(name, options=""):
        suite = tmp_path / f"{name}.toml"
        suite.write_text(SUITE.format(options=options))
        assert 0 == main(["run", str(suite), "--run", str(tmp_path / name), "--no-report"])
        capsys.readouterr()
        return str(tmp_path / name)

    return run


@pytest.fixture
def held(tmp_path, capsys):
    """A function that gates and compares two runs: both exit codes and all that they say."""

    def hold(before, after):
        baseline = str(tmp_path / "baseline.json")
        assert 0 == main(["baseline", "save", before, "-o", baseline])
        codes = main(["gate", after, "--baseline", baseline]), main(["compare", before, after])
        return codes, "".join(capsys.readouterr())

    return hold


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("", ", scale = 2", "option scale (2.0 and its default)"),
        (", scale = 2", ", scale = 3.5", "option scale (3.5 and 2.0)"),
        ("", ', table = "table"', "option table ('sha256:6b86b273ff34fce1' and its default)"),
        (", scale = 1", "", ""),  # the default, said
        (", scale = 2", ", scale = 2.0", ""),
        ("", ", batch = 8", ""),  # changes no number, the plugin says
        (', table = "table"', ', table = "./table"', ""),
    ],
)
def test_options_are_part_of_what_a_number_means(run_suite, held, before, after, words):
    """A definition that forgets one does not make 1 of it comparable with 2 of it."""
    codes, text = held(run_suite("before", before), run_suite("after", after))
    assert codes == ((4, 4) if words else (0, 0))
    assert words in text
    assert ("numbers of different definitions do not compare: score@" in text) == bool(words)


def test_a_file_counts_by_its_content(run_suite, held, tmp_path):
    """The same path with another content is another option."""
    before = run_suite("before", ', table = "table"')
    (tmp_path / "table").write_text("12")
    codes, text = held(before, run_suite("after", ', table = "table"'))
    assert codes == (4, 4)
    assert "option table ('sha256:6b51d431df5d7f14' and 'sha256:6b86b273ff34fce1')" in text


@pytest.mark.parametrize(
    ("distribution", "version", "words"),
    [
        ("Mine_Dist", "2.0", ""),  # a new version is what a gate judges
        (
            "other-dist",
            "1.0",
            "the metric that measured them ('other-dist:mine' and 'mine-dist:mine')",
        ),
    ],
)
def test_a_metric_of_another_distribution_is_another(
    run_suite, held, plugin_host, distribution, version, words
):
    """Whatever it calls itself and its numbers."""
    before = run_suite("before")
    for info in plugin_host.folder.glob("mine_dist-*"):
        shutil.rmtree(info)
    source = METRIC.replace("NAME", "mine")
    plugin_host.install("mine2", source, distribution=distribution, version=version)
    codes, text = held(before, run_suite("after"))
    assert codes == ((4, 4) if words else (0, 0))
    assert words in text


def test_a_baseline_that_does_not_say_how_it_was_measured(run_suite, tmp_path, capsys):
    """One of an earlier version is read, and its numbers are refused in a sentence."""
    run, path = run_suite("run"), tmp_path / "baseline.json"
    assert 0 == main(["baseline", "save", run, "-o", str(path)])
    content = json.loads(path.read_text())
    del content["checksum"]
    ((now, definition),) = content["definitions"].items()
    assert definition.pop("measured_by") == {"metric": "mine-dist:mine", "options": {}}
    ids = {now: "score@f5dfeb5f"}
    content["definitions"] = {ids[now]: definition}
    for value in content["values"]:
        value["definition"] = ids[value["definition"]]
    path.write_text(json.dumps({**content, "checksum": seal(content)}))
    capsys.readouterr()
    assert 4 == main(["gate", run, "--baseline", str(path)])
    out = capsys.readouterr().out
    assert "results of earlier versions do not" in out
    assert "save a new baseline" in out
