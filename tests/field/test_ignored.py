"""What a suite or a command line asks for in vain is said or refused, never ignored."""

import json
import os

import pytest

from tfq_bench.cli import main

RENDERERS = """
from tfq_bench import api


class Writer:
    def render(self, runs, path):
        path.write_text("written")


@api.hookimpl
def tfq_renderers():
    for name, suffix in (("html", ".html"), ("pages", ".md"), ("other", ".md"), ("csv", ".csv")):
        yield api.RendererProvider(
            name=name, summary="", factory=f"{__name__}:Writer", suffix=suffix
        )
"""

FP = '[[quantizer]]\nname = "fp"\n'


@pytest.fixture
def notes(tiny_suite, capsys):
    """A function that plans a tiny suite after an edit of its text; returns its notes."""

    def plan(old="", new="", **options):
        path = tiny_suite(**options)
        path.write_text(path.read_text().replace(old, new) if old else path.read_text())
        capsys.readouterr()
        assert 0 == main(["plan", str(path), "--json"])
        found = json.loads(capsys.readouterr().out)["notes"]
        assert 0 == main(["plan", str(path)])
        text = capsys.readouterr().out
        assert all(f"note: {note}" in text for note in found)
        return found

    return plan


RTN = '[[quantizer]]\nname = "rtn"\nwbits = [8]\nabits = 8\n'
TIMING = "[timing]\nbatch = 1\nwarmup = 0\nrounds = 3\n"


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        ((FP, ""), {}, "model 'tiny' has no full-precision cell"),
        ((), {"metrics": ("bits",)}, "[timing] has no effect"),
        ((RTN, ""), {}, "[calibration] and [[backend]] without effect: nothing is quantized."),
        ((), {"batch": 8}, "[sampling] batch 8 is never full: tasks have 2."),
        (("threads = 1", "threads = 1000"), {}, "[suite] threads 1000 are more than"),
        (('[suite]', '[suite]\ndevice = "cuda"'), {}, "torch finds no GPU here"),
        (
            (),
            {"more": '[[exclude]]\nscheme = "W3*"\nreason = "r"\n'},
            "[[exclude]] scheme = W3* matches no cell.",
        ),
    ],
)  # fmt: skip
def test_what_a_suite_asks_for_in_vain(notes, change, options, sentence):
    """Each is one sentence in the plan."""
    assert any(sentence in note for note in notes(*change, **options))


def test_a_sound_suite_has_no_notes(notes):
    """Nothing is said where all has effect."""
    assert [] == notes()


def test_run_says_it_too(tiny_suite, tmp_path, capsys):
    """Before it starts."""
    path = tiny_suite(metrics=("bits",))
    path.write_text(path.read_text().replace(FP, "").replace(TIMING, ""))
    assert 0 == main(["run", str(path), "--run", str(tmp_path / "run"), "--no-report"])
    assert capsys.readouterr().out.startswith("note: model 'tiny' has no full-precision cell")


@pytest.mark.parametrize("verb", [["plan", "quickstart"], ["plugins", "list"], ["status", "."]])
@pytest.mark.parametrize("before", [True, False])
def test_blocking_nothing_is_refused(plugin_host, capsys, verb, before):
    """A typing error of --block would leave the plugin in."""
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    flag = ["--block", "tinny"]
    assert 2 == main([*flag, *verb] if before else [*verb, *flag])
    assert "no plugin is called 'tinny'; did you mean 'tiny'" in capsys.readouterr().err
    for name in ("tiny", "Tiny_Dist", "*"):
        assert 0 == main(["plugins", "list", "--block", name])


@pytest.fixture
def run(tiny_suite, plugin_host, tmp_path):
    """A finished run, with renderers installed."""
    plugin_host.install("renderers", RENDERERS, distribution="renderers-dist")
    suite = str(tiny_suite(metrics=("bits",)))
    assert 0 == main(["run", suite, "--run", str(tmp_path / "run"), "--no-report"])
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "out.pdf"], "no renderer writes '.pdf' files; known: '.csv', '.html', '.md'"),
        (["-o", "out.md"], "'other' and 'pages' write such files; choose one with --renderer"),
        (["-o", "out.md", "--renderer", "html"], "the renderer 'html' writes '.html' files"),
        (["-o", "out.csv"], ""),
        (["-o", "out.md", "--renderer", "pages"], ""),
        (["-o", "out"], ""),
    ],
)
def test_the_ending_of_a_report_counts(run, tmp_path, monkeypatch, capsys, arguments, message):
    """A file is what its name says, or is not written."""
    monkeypatch.chdir(tmp_path)
    assert (2 if message else 0) == main(["report", str(run), *arguments])
    assert message in capsys.readouterr().err
    assert bool(message) != (tmp_path / arguments[1]).exists()


def test_a_renderer_without_a_report(tiny_suite, capsys):
    """Two arguments of which one undoes the other."""
    assert 2 == main(["run", str(tiny_suite()), "--no-report", "--renderer", "html"])
    assert "--renderer has no effect with --no-report" in capsys.readouterr().err


def test_another_suite_s_folder_is_said(run, tiny_suite, capsys):
    """The plan in the folder is replaced, which may be a slip."""
    path = tiny_suite(metrics=("bits",))
    path.write_text(path.read_text().replace('name = "tiny"\nthreads', 'name = "second"\nthreads'))
    assert 0 == main(["run", str(path), "--run", str(run), "--no-report"])
    assert f"note: '{run}' held a run of the suite 'tiny'." in capsys.readouterr().out


def test_cores_are_those_that_may_be_used(notes, monkeypatch):
    """A process that is kept to one core is told of two threads."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert any("the 1 cores" in note for note in notes("threads = 1", "threads = 2"))
