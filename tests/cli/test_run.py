"""`tfq-bench run` carries a suite out, says how, and refuses in one sentence what cannot be."""

import errno
import json
import os
import shutil

import pytest

from tfq_bench.cli import main
from tfq_bench.store import artefacts, records
from tfq_bench.store.run import RunFolder
from tfq_bench.testing.tiny import TinyNetwork

RENDERER = """
from tfq_bench.api import RendererProvider, hookimpl

class Lines:
    def render(self, runs, target):
        target.write_text("\\n".join(run.name for run in runs))

@hookimpl
def tfq_renderers():
    return [RendererProvider(name="html", summary="", factory=f"{__name__}:Lines", suffix=".txt")]
"""
QUANTIZER = """
from tfq_bench import api

class Bad:
    def __init__(self, *, scheme):
        pass
    def calibration_needs(self, loaded, *, images):
        return api.CalibrationNeeds()
    def quantize(self, *args, **kwargs):
        {body}

@api.hookimpl
def tfq_quantizers():
    yield api.QuantizerProvider(
        name="bad", summary="", factory=f"{{__name__}}:Bad", wbits=(8,), abits=(8,)
    )
"""
BACKEND = """
from tfq_bench import api

@api.hookimpl
def tfq_backends():
    yield api.BackendProvider(
        name="small", summary="", factory="tfq_bench.quant.lower.simulate:SimulateBackend",
        execution="lowered", wbits=(4,), abits=(4,), devices=("cpu",)
    )
"""
BAD = '[[quantizer]]\nname = "bad"\n'


@pytest.fixture
def start(tiny_suite, tmp_path, capfd):
    """A function that runs a tiny suite: exit code, standard output, standard error."""

    def run(*arguments, folder="run", **options):
        suite = tiny_suite(**options)
        code = main(["run", str(suite), "--run", str(tmp_path / folder), "--no-report", *arguments])
        shown = capfd.readouterr()
        return code, shown.out, shown.err

    return run


def test_cells_that_are_chosen_run_and_the_others_later(start, tmp_path):
    """The plan is the whole one, so what is finished stays so, and the rest is found open."""
    code, told, _ = start("-k", "w4", wbits=(8, 4))
    assert 0 == code
    assert "-k chose 2 of 3 cells; others are as they were." in told
    labels = {record.label for record in RunFolder.open(tmp_path / "run").records()}
    assert {"tiny / fp FP / eager", "tiny / rtn W4A8 / simulate"} == labels
    code, told, log = start(wbits=(8, 4))
    assert 0 == code
    assert "12 of 17 tasks are finished already" in log
    assert "-k" not in told
    assert 3 == len({record.label for record in RunFolder.open(tmp_path / "run").records()})


def test_no_cell_is_chosen(start, tmp_path):
    """The labels are listed, and nothing is written."""
    code, _, log = start("-k", "w5")
    assert 2 == code
    assert "no cell of the suite has 'w5' in its label. Labels: tiny / fp FP / eager;" in log
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the run of `finished` is kept."""
    return tmp_path_factory.mktemp("kept") / "run"


@pytest.fixture
def finished(start, kept, tmp_path):
    """The folder of a finished run, which is made once and copied."""
    if not kept.exists():
        assert 0 == start()[0]
        (tmp_path / "run").rename(kept)
    return shutil.copytree(kept, tmp_path / "run")


def one_sentence(code, out, err):
    """The message of a refusal: exit code 2, one line, no traceback."""
    assert 2 == code, err
    line = err.splitlines()[-1]
    assert line.startswith("tfq-bench: ")
    assert "Traceback" not in err
    assert "bug" not in err
    return line


def test_result_goes_to_output_and_progress_to_error(start):
    """A pipe gets the table alone; everything else is for the eye, and is only progress."""
    code, out, err = start(metrics=("paired", "timing", "bits"))
    assert 0 == code
    assert ["cell", "psnr", "latency-ms", "mean-weight-bits"] == out.splitlines()[0].split()
    assert 5 == len(out.splitlines())
    first, *rest = err.splitlines()
    assert f"{len(rest)} tasks to do" == first
    assert all(line.startswith("[") and "] tiny / " in line for line in rest)


def test_run_again_computes_nothing(start, tmp_path, monkeypatch):
    """The same command finds everything finished, without one call of a network."""
    table = start()[1]
    artefact_files = (tmp_path / "run").glob("artefacts/*/*/*")
    before = {path: path.stat().st_mtime_ns for path in artefact_files}
    lines = (tmp_path / "run" / "records.jsonl").read_bytes()
    monkeypatch.setattr(TinyNetwork, "forward", None)
    assert (0, table) == start()[:2]
    assert before
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert lines == (tmp_path / "run" / "records.jsonl").read_bytes()


def test_run_folder_is_called_after_the_suite(tiny_suite, tmp_path, monkeypatch):
    """Without --run the results are in runs/NAME."""
    monkeypatch.chdir(tmp_path)
    assert 0 == main(["run", str(tiny_suite(metrics=("bits",))), "--no-report"])
    assert (tmp_path / "runs" / "tiny" / "records.jsonl").exists()


def test_report_is_written_and_named(plugin_host, tiny_suite, tmp_path, capsys):
    """The last line is where to look."""
    plugin_host.install("lines", RENDERER)
    assert 0 == main(["run", str(tiny_suite(metrics=("bits",))), "--run", str(tmp_path / "run")])
    target = tmp_path / "run" / "report.txt"
    assert f"Report: {target}" == capsys.readouterr().out.splitlines()[-1]
    assert "run" == target.read_text()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("raise PermissionError(13, 'no key')", "PermissionError: [Errno 13] no key"),
        ("raise SystemExit(0)", "SystemExit: 0"),
    ],
)
def test_a_plugin_that_raises_fails_its_cell(plugin_host, start, tmp_path, capfd, body, reason):
    """Exit code 3, with reason, stage, log and a command that repeats it; other cells go on."""
    plugin_host.install("bad", QUANTIZER.format(body=body))
    code, out, err = start(more=BAD, metrics=("bits",))
    assert 3 == code
    assert f"failed: tiny / bad W8A8 / simulate at quantize: {reason}" in out
    assert "Traceback" not in out + err
    run = RunFolder(tmp_path / "run")
    failed = [record for record in run.records() if record.status == "failed"]
    assert ["tiny / bad W8A8 / simulate"] == [record.label for record in failed]
    assert 2 == len({record.label for record in run.records() if record.status == "ok"})
    log = run.path / failed[0].log
    assert f"log: {log}" in out
    assert "Traceback" in log.read_text()
    assert failed[0].reproduce in out
    assert 3 == main(failed[0].reproduce.split()[1:])
    assert reason in capfd.readouterr().err


def test_a_skipped_cell_is_told_with_its_reason(plugin_host, start):
    """What a backend cannot do is left out in words, and the run succeeds."""
    plugin_host.install("small", BACKEND)
    code, out, _ = start(more='[[backend]]\nname = "small"\n', metrics=("bits",))
    assert 0 == code
    assert "skipped: tiny / rtn W8A8 / small: backend 'small' has weights of 4 bits" in out


@pytest.mark.parametrize("file", ["images.safetensors", "manifest.json"])
def test_a_tampered_artefact(start, finished, file):
    """Images that changed are told by name and drawn again; the numbers are the same."""
    for stage in ("sample", "evaluate"):
        for folder in (finished / "artefacts" / stage).iterdir():
            for path in folder.iterdir():
                if stage == "evaluate":
                    path.unlink()  # so that the images are read again
                elif path.name == file:
                    path.write_bytes(path.read_bytes()[:-4] + b"oops")
    code, _, err = start()
    assert 0 == code
    notes = [line for line in err.splitlines() if line.startswith("note: ")]
    assert notes
    assert all(file in note and "is made again" in note for note in notes)


def test_a_tampered_result(start, finished):
    """A number that was edited by hand does not reach the records."""
    records = finished / "records.jsonl"
    before = records.read_bytes()
    for path in (finished / "artefacts" / "evaluate").rglob("result.json"):
        path.write_text(path.read_text().replace('"n": ', '"n": 1'))
    records.unlink()
    code, _, err = start()
    assert 0 == code
    assert "has changed since it was written" in err
    assert before == records.read_bytes()


def test_a_run_folder_of_another_schema(start, finished):
    """A run that a later version wrote is left as it is."""
    plan = finished / "plan.json"
    content = json.dumps({**json.loads(plan.read_text()), "schema": 3})
    plan.write_text(content)
    message = one_sentence(*start())
    assert "expected a plan of schema 2 at most, found 3" in message
    assert content == plan.read_text()


def test_a_damaged_or_older_plan_is_written_anew(start, tmp_path, capfd):
    """Every other command says so; the run then finds everything finished."""
    start(metrics=("bits",))
    plan = tmp_path / "run" / "plan.json"
    before = plan.read_bytes()
    for content in ("", "{", "[]", '{"schema": 1}', '{"schema": 2}'):
        plan.write_text(content)
        assert 2 == main(["status", str(tmp_path / "run")]), content
        assert "Run the suite again in this folder" in capfd.readouterr().err, content
        assert 0 == start(metrics=("bits",))[0], content
        assert before == plan.read_bytes(), content


def test_a_folder_with_something_else(start, tmp_path):
    """Nothing is written among files that are no run."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("x")
    assert "found other files" in one_sentence(*start())
    assert ["thesis.tex"] == [path.name for path in (tmp_path / "run").iterdir()]


def fail(monkeypatch, where, name, error):
    """Makes a function of the operating system fail."""

    def broken(*args, **kwargs):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(where, name, broken)


@pytest.mark.parametrize(
    ("where", "name"),
    [(artefacts, "write_manifest"), (records.os, "pwrite"), (artefacts.tempfile, "mkdtemp")],
)
@pytest.mark.parametrize(
    ("error", "words"),
    [(errno.ENOSPC, "no space is left"), (errno.EACCES, "permission was denied")],
)
def test_a_disk_that_refuses(start, tmp_path, monkeypatch, where, name, error, words):
    """Full disk or no permission: one sentence, nothing half-written, and the run goes on later."""
    with monkeypatch.context() as patch:
        fail(patch, where, name, error)
        message = one_sentence(*start(metrics=("bits",)))
    assert words in message
    assert "then repeat the command" in message
    assert [] == list((tmp_path / "run").rglob(".new-*"))
    assert () == RunFolder(tmp_path / "run").records()
    assert 0 == start(metrics=("bits",))[0]


def test_a_disk_that_fills_up_inside_a_library(start, tmp_path, monkeypatch):
    """Libraries that write files report the same error, without naming the file."""
    from tfq_bench.pipeline import sample

    with monkeypatch.context() as patch:
        fail(patch, sample, "save_file", errno.ENOSPC)
        assert "no space is left" in one_sentence(*start())
    assert [] == list((tmp_path / "run" / "artefacts" / "sample").iterdir())


def test_a_folder_that_cannot_be_made(start, tmp_path):
    """A path through a file, which no permission helps."""
    (tmp_path / "file").write_text("")
    assert "is not a folder" in one_sentence(*start(folder="file/run"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--executor", "proces"], "did you mean 'process'"),
        (["--slots", "2"], "the executor 'inline' has no slots"),
        (["--executor", "process", "--slots", "0"], "slots"),
    ],
)
def test_arguments_are_checked_before_anything_is_written(start, tmp_path, arguments, message):
    """A typing error costs nothing."""
    assert message in one_sentence(*start(*arguments))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('[[quantizer]]\nname = "rnt"\n', "did you mean 'rtn'"),
        ('[[model]]\nname = "tinny"\n', "did you mean 'tiny'"),
        ('[[backend]]\nname = "simulat"\n', "did you mean 'simulate'"),
        ('[[metric]]\nname = "pared"\n', "did you mean 'paired'"),
        ('[[quantizer]]\nname = "rtn"\nweigts = "mse"\n', "did you mean 'weights'"),
        ('[[quantizer]]\nname = "rtn"\nwbits = 9\n', "wbits must be among"),
        ("[[metric\n", "line"),
    ],
)
def test_suites_are_checked_before_anything_is_written(start, tmp_path, more, message):
    """Unknown names, impossible bits and malformed TOML are refused with the nearest names."""
    assert message in one_sentence(*start(more=more))
    assert not (tmp_path / "run").exists()


def test_a_run_in_use(start, finished):
    """Two runs never share a folder."""
    with RunFolder.open(finished).lease():
        assert f"in use by process {os.getpid()}" in one_sentence(*start())
