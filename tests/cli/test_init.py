"""`tfq-bench init` writes suites that `tfq-bench plan` takes as they are."""

import builtins
import itertools
import json
import sys

import pytest

from tfq_bench.cli import main
from tfq_bench.cli.questions import asked
from tfq_bench.plan.suite import load_suite

KERNELS = """
from tfq_bench import api


class Kernels:
    def check(self, *, device):
        raise api.LoweringError("not on this machine.")

    def lower(self, loaded, state):
        raise NotImplementedError


class Method:
    def __init__(self, *, scheme, preset):
        pass


class Tool:
    packages = ("tool==1.0",)

    def __init__(self, *, scheme):
        pass

    def check(self, *, device):
        pass


@api.hookimpl
def tfq_backends():
    for name, device in (("fast", "cpu"), ("cuda", "cuda")):
        yield api.BackendProvider(
            name=name,
            summary=f"kernels for {device}",
            factory=f"{__name__}:Kernels",
            devices=(device,),
            wbits=(4, 8),
        )


@api.hookimpl
def tfq_quantizers():
    yield api.QuantizerProvider(
        name="slow",
        summary="Learns for hours.",
        factory=f"{__name__}:Method",
        wbits=(3, 4),
        abits=(8, 32),
        policies=("uniform", "careful"),
        options=(
            api.Option(
                name="preset",
                kind="str",
                default="full",
                choices=("quick", "full"),
                help="Effort, and a backslash \\\\ with 'quotes'.",
            ),
        ),
    )
    yield api.QuantizerProvider(
        name="tool",
        summary="Executes by itself (external).",
        factory=f"{__name__}:Tool",
        wbits=(8,),
        policies=("own",),
        external=True,
    )
"""


@pytest.fixture
def installed(plugin_host, tmp_path, monkeypatch):
    """The model `tiny`, kernels that run nowhere, a method with a preset and an external tool."""
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    plugin_host.install("kernels", KERNELS, distribution="kernels-dist")
    monkeypatch.chdir(tmp_path)


MATRIX = [
    "",
    "--model tiny --policy uniform",
    "--quantizer fp",
    "--quantizer fp --metric bits",
    "--quantizer rtn --bits W8A8 --bits W2A4 --backend simulate",
    "--quantizer rtn --bits W4A8 --bits W4A32 --bits W8A8 --backend fast --backend simulate",
    "--quantizer rtn --backend fast --metric paired --metric timing",
    "--quantizer rtn --device cuda --images 5",
    "--quantizer rtn --quantizer slow --device cuda --backend cuda",
    "--quantizer slow --bits W3A32 --policy careful --images 1000",
    "--quantizer tool",
    "--quantizer tool --bits W8A8 --policy uniform --device cuda --metric kernels",
    "--quantizer rtn --quantizer slow --quantizer tool",
    "--quantizer tool --quantizer rtn --bits W8A8 --bits W4A8",
]


@pytest.mark.parametrize("words", MATRIX, ids=lambda words: words or "nothing")
def test_what_is_written_can_be_planned(installed, capsys, words):
    """Over a matrix of choices, unchanged and without a note that something is in vain."""
    words = words.split()
    assert 0 == main(["init", "mine.toml", "--yes", *words])
    capsys.readouterr()
    assert 0 == main(["plan", "mine.toml", "--json"])
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert [] == [note for note in notes if "effect" in note or "never full" in note]
    spec = load_suite("mine.toml")
    given = [(words[n], words[n + 1]) for n in range(0, len(words), 2)]
    methods = {value for option, value in given if option == "--quantizer"} or {"rtn"}
    assert methods | {"fp"} == {entry.name for entry in spec.quantizers}
    assert dict(given).get("--device", "cpu") == spec.device
    metrics = [value for option, value in given if option == "--metric"]
    assert not metrics or metrics == [entry.name for entry in spec.metrics]


def test_choices_stand_in_the_file(installed, capsys):
    """Bits that a quantizer lacks go to those that have them; slow presets are quick at first."""
    words = "--quantizer slow --quantizer rtn --bits W4A8 --bits W8A8 --bits W4A32 --images 7"
    assert 0 == main(["init", "mine.toml", *words.split(), "--policy", "uniform"])
    spec = load_suite("mine.toml")
    found = [(one.name, one.given.get("wbits"), one.given.get("abits")) for one in spec.quantizers]
    assert [
        ("fp", None, None),
        ("slow", [4], 8),
        ("slow", [4], 32),
        ("rtn", [4, 8], 8),
        ("rtn", [4], 32),
    ] == found
    assert 7 == spec.sampling["images"]
    assert "quick" == spec.quantizers[1].given["preset"]
    assert [("fast", True, False), ("simulate", False, True)] == [
        (one.name, one.optional, one.standby) for one in spec.backends
    ]


def test_every_number_has_a_comment(installed, capsys):
    """Behind it or above it; and the cost is told."""
    assert 0 == main(["init", "mine.toml", "--dry-run", "--yes"])
    lines = capsys.readouterr().out.splitlines()
    silent = [
        line
        for before, line in itertools.pairwise(lines)
        if " = " in line and "#" not in line and not before.startswith("#")
    ]
    assert [] == silent
    assert max(map(len, lines)) <= 100
    assert "TMAC" in " ".join(lines)
    assert "# [[metric]]" in lines


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "tinny"], "no model is called 'tinny'; did you mean 'tiny'?"),
        (["--quantizer", "rnt"], "no quantizer is called 'rnt'; did you mean 'rtn'?"),
        (["--backend", "simulat"], "no backend is called 'simulat'; did you mean 'simulate'?"),
        (["--metric", "bit"], "no metric is called 'bit'; did you mean 'bits'"),
        (["--device", "cud"], "none is called 'cud'; did you mean 'cuda'"),
        (["--policy", "unifrm"], "has none called 'unifrm'; did you mean 'uniform'"),
        (["--bits", "4/8"], "bits are written as W4A8"),
        (["--bits", "W9A8"], "quantizer 'rtn' offers weights of 2, 3, 4, 5, 6, 7, 8"),
        (["--quantizer", "tool", "--quantizer", "rtn", "--bits", "W4A8"], "'tool' offers weights"),
        (["--backend", "cuda"], "'cuda' runs on cuda, and the suite on 'cpu'"),
        (["--images", "many"], "expected a whole number, found 'many'"),
        (["--images", "1"], "must lie in [2, 1000000], found 1"),
        (["--source", "here"], "has its own weights"),
    ],
)
def test_choices_that_cannot_be_are_refused(installed, capsys, tmp_path, words, message):
    """With the nearest names, and nothing is written."""
    assert 2 == main(["init", "mine.toml", "--yes", *words])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "mine.toml").exists()


def test_what_the_plan_refuses_is_not_written(installed, asset_plugin, capsys, tmp_path):
    """Missing files are named with the command that fetches them."""
    asset_plugin()
    assert 2 == main(["init", "mine.toml", "--metric", "sharp"])
    assert "tfq-bench assets fetch weights.bin" in capsys.readouterr().err
    assert not (tmp_path / "mine.toml").exists()


def test_a_file_that_is_there_stays(installed, capsys, tmp_path):
    """Unless it is forced; --dry-run touches nothing."""
    (tmp_path / "mine.toml").write_text("precious")
    assert 2 == main(["init", "mine.toml", "--yes"])
    assert "--force" in capsys.readouterr().err
    assert 0 == main(["init", "mine.toml", "--yes", "--dry-run"])
    assert "precious" == (tmp_path / "mine.toml").read_text()
    assert 0 == main(["init", "mine.toml", "--yes", "--force"])
    assert "mine" == load_suite("mine.toml").name


@pytest.mark.parametrize("name", ["mine", "mine.json", "a b.toml", ".toml"])
def test_the_file_names_the_suite(installed, capsys, name):
    """So it must be a name."""
    assert 2 == main(["init", name, "--yes"])
    assert "FILE is expected to be a name that ends in .toml" in capsys.readouterr().err


def test_without_options_and_terminal_the_usual_is_written(installed, capsys, tmp_path):
    """Nothing is asked; the file has the name that help says."""
    assert 0 == main(["init"])
    assert "my-suite.toml" in capsys.readouterr().out
    assert "tiny" == load_suite(str(tmp_path / "my-suite.toml")).models[0].name


@pytest.fixture
def answers(monkeypatch):
    """A function that gives answers on a terminal; it ends after the last."""

    def give(*lines):
        left = iter(lines)

        def answer(prompt):
            try:
                return next(left)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr(builtins, "input", answer)
        for stream in (sys.stdin, sys.stdout):
            monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)

    return give


def test_on_a_terminal_it_asks(installed, answers, capsys):
    """What cannot be used is asked for again, with the reason; Enter takes the usual."""
    answers("tinny", "", "rtn, slow", "W9A9", "W4A8", "x", "6", "")
    assert 0 == main(["init", "mine.toml"])
    shown = capsys.readouterr().out
    assert "did you mean 'tiny'?" in shown
    assert "'rtn' offers weights" in shown
    assert "expected a whole number" in shown
    spec = load_suite("mine.toml")
    assert ["fp", "rtn", "slow"] == [entry.name for entry in spec.quantizers]
    assert 6 == spec.sampling["images"]


def test_an_end_of_input_is_no_traceback(installed, answers, capsys, tmp_path):
    """It names the way without questions."""
    answers("")
    assert 2 == main(["init", "mine.toml"])
    assert "--yes" in capsys.readouterr().err
    assert not (tmp_path / "mine.toml").exists()


def test_options_leave_no_question(installed, answers, plugin_host):
    """One choice, and the rest is the usual."""
    answers()
    assert 0 == main(["init", "mine.toml", "--images", "4"])
    assert 0 == main(["init", "other.toml", "--yes"])


def test_models_without_their_files_are_not_offered(installed, plugin_host, monkeypatch):
    """Their suite could not be planned; who names one all the same is told what to fetch."""
    source = """
from tfq_bench import api


def assets(options):
    return (
        api.Asset(name="a.bin", what="a", kind="file", source="https://example.org/a", path=None),
    )


@api.hookimpl
def tfq_models():
    yield api.ModelProvider(
        name="bare", summary="", factory="nowhere:Bare", assets=f"{__name__}:assets"
    )
"""
    plugin_host.install("bare", source, distribution="bare-dist")
    prompts = []
    monkeypatch.setattr(builtins, "input", lambda prompt: prompts.append(prompt) or "")
    assert "tiny" == asked(plugin_host.discover()).model
    assert "model (tiny) [tiny]: " == prompts[0]


def test_a_model_that_takes_a_folder_is_asked_for_it(installed, answers, plugin_host):
    """Its option `source` has no default then."""
    source = """
from tfq_bench import api


@api.hookimpl
def tfq_models():
    where = api.Option(name="source", kind="source", default="", help="Folder.")
    yield api.ModelProvider(name="any", summary="", factory="nowhere:Any", options=(where,))
"""
    plugin_host.install("any", source, distribution="any-dist")
    answers("any", "here", "", "", "", "")
    found = asked(plugin_host.discover())
    assert ("any", "here") == (found.model, found.source)
