"""`history` on run folders, from the command line to the exit code."""

import json
import shlex
import sqlite3
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from tfq_bench.cli import main
from tfq_bench.keys import definition_id
from tfq_bench.store.history import Chosen, HistoryFile
from tfq_bench.store.records import append
from tfq_bench.store.run import RunFolder
from tfq_bench.trends.causes import evidence
from tfq_bench.types import Interval, MetricDefinition, MetricValue, Record

CELL = "tiny / rtn W4A8 / cpu"


@pytest.fixture
def make_run(tmp_path):
    """A function that makes a finished run of one cell, whose numbers are `metric=value`."""
    made = []

    def make(*, code="a", torch="2.14.1", images=4, error=None, failed=False, **numbers):
        made.append(1)
        axes = {"quantizer": "rtn", "seed": "0"}
        made_of = {"q": {"what": "quantizer 'rtn'", "code of rtn": code, "version of torch": torch}}
        plan = {"schema": 2, "id": f"plan-{code}-{torch}", "suite": {"name": "s"}, "shards": []}
        cell = {"key": f"c-{code}", "label": CELL, "axes": axes, "status": "planned"}
        cell |= {"reason": None, "reference": None, "execution": "lowered"}
        cell |= {"keys": {"evaluate": list(numbers)}}
        cell |= {"made_of": {"evaluate": [["q"] for _ in numbers]}}
        run = RunFolder.prepare(tmp_path / f"run{len(made)}")
        run.write("", {**plan, "cells": [cell], "ingredients": made_of})
        hardware = {"cpu": "EPYC", "usable_cores": 2, "memory_bytes": 1, "gpus": []}
        environment = {"hardware": hardware, "versions": {"torch": torch}, "python": "3.11"}
        common = {"cell": cell["key"], "label": CELL, "axes": axes, "run": plan["id"]}
        common |= {"environment": run.add_environment(environment), "execution": "lowered"}
        records = []
        for metric, value in numbers.items():
            definition = MetricDefinition(
                name=metric, unit="", direction="lower", summary="", parameters={"n": images}
            )
            interval = None
            if error is not None:
                interval = Interval(low=value - error, high=value + error, level=0.95, method="m")
            value = MetricValue(
                definition=definition,
                value=value,
                n=images,
                interval=interval,
                replicates=(value - error, value + error) if error is not None else (),
            )
            common |= {"plugins": ("tfq-bench==0.1.0",)}
            records.append(
                Record(
                    **common,
                    status="ok",
                    source=metric,
                    source_values=1,
                    definition=definition_id(definition),
                    metric=value,
                )
            )
        if failed:
            records = [Record(**common, status="failed", reason="out of memory")]
        append(run.records_path, records)
        return str(run.path)

    return make


RENDERERS = """
from tfq_bench.api import RendererProvider, hookimpl

class Lines:
    def render(self, what, target):
        lines = [f"{s.metric} {len(s.points)} {trend.outcome}" for s, trend in what]
        target.write_text("\\n".join(lines))

@hookimpl
def tfq_renderers():
    for name, renders in (("html", "runs"), ("history", "history")):
        yield RendererProvider(
            name=name, summary="", factory=f"{__name__}:Lines", suffix=".html", renders=renders
        )
"""


@pytest.fixture
def call(tmp_path, capsys, monkeypatch, plugin_host):
    """A function that runs `history` here, where no repository is: exit code, output, errors."""
    plugin_host.install("lines", RENDERERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))

    def call(*words):
        code = main(["history", *map(str, words)])
        found = capsys.readouterr()
        assert "Traceback" not in found.err
        return code, found.out, found.err

    return call


@pytest.fixture
def drifting(make_run, call):
    """Ten runs at commits 1 to 10, each 0.5 % worse than the one before."""
    for number in range(1, 11):
        run = make_run(fd=100.0 + 0.5 * number, psnr=100.0, error=0.01)
        assert 0 == call("add", run, "--commit", f"{number:040x}")[0]


@pytest.fixture
def three(make_run, call):
    """Three runs."""
    for number in range(1, 4):
        assert 0 == call("add", make_run(fd=100.0 + number, psnr=1.0, error=0.01))[0]


def test_a_run_is_added_once(make_run, call):
    """The same run twice is one, with a commit or without; another run of its numbers is not."""
    run = make_run(fd=1.0)
    assert "run 1 (s, commit unknown): 1 numbers." in call("add", run)[1]
    assert "run 1 (s, commit unknown): no new number." in call("add", run)[1]
    assert (
        "run 1 (s, commit aaaaaaaaaa): no new number." in call("add", run, "--commit", "a" * 40)[1]
    )
    assert "run 1 (s, commit aaaaaaaaaa): no new number." in call("add", run)[1]
    assert "run 2 (s, commit bbbbbbbbbb): 1 numbers." in call("add", run, "--commit", "b" * 40)[1]
    assert "run 3 (s, commit unknown): 1 numbers." in call("add", make_run(fd=2.0))[1]


def test_a_run_that_has_grown_is_the_same_run(make_run, call):
    """A number that came later joins those that are there."""
    assert 0 == call("add", make_run(fd=1.0))[0]
    assert (
        "run 1 (s, commit unknown): 1 new of 2 numbers."
        in call("add", make_run(fd=1.0, psnr=2.0))[1]
    )
    code, out, _ = call("show", CELL, "psnr", "--json")
    assert (0, 1) == (code, len(json.loads(out)["series"]))


def test_what_is_left_out_is_told(make_run, call):
    """A failed cell and a number that is none are named; a run without numbers is refused."""
    code, out, _ = call("add", make_run(fd=1.0, psnr=float("nan")))
    assert (0, True) == (code, f"left out: {CELL}, psnr: nan" in out)
    code, _, err = call("add", make_run(code="f", fd=1.0, failed=True))
    assert (5, True) == (code, "has no numbers to add" in err)


def test_an_unfinished_run_is_refused(make_run, call, tmp_path):
    """It would become another run when it is finished; no file is made."""
    run = make_run(fd=1.0)
    (Path(run) / "records.jsonl").write_bytes(b"")
    code, _, err = call("add", run)
    assert (2, True) == (code, "found 1 unfinished cells" in err)
    assert not list(tmp_path.glob("*.sqlite"))


def test_two_cells_in_one_place_are_refused(make_run, call):
    """Nobody could say which of them a later run continues."""
    folder = RunFolder.open(Path(make_run(fd=1.0)))
    plan = folder.plan()
    (cell,) = plan["cells"]
    folder.write("", {**plan, "cells": [cell, {**cell, "key": "other"}]})
    code, _, err = call("add", folder.path)
    assert (4, True) == (code, "have the same place in the grid" in err)


def test_the_commit_comes_from_git(make_run, call, tmp_path, monkeypatch):
    """Of the repository that the run lies in; an edited file is told."""
    monkeypatch.delenv("GIT_CEILING_DIRECTORIES")
    run = make_run(fd=1.0)
    (tmp_path / "code.py").write_text("1")
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for words in (["init", "-q"], ["add", "code.py"], [*identity, "commit", "-q", "-m", "m"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.strip()
    assert f"commit {commit[:10]}): 1 numbers" in call("add", run)[1]
    (tmp_path / "code.py").write_text("2")
    assert f"commit {commit[:10]}+): 1 numbers" in call("add", make_run(fd=2.0))[1]


def test_a_drift_fails_the_build_though_each_step_passes(drifting, make_run, call, tmp_path):
    """Each gate passes, the history does not; what is steady beside it is no matter."""
    runs = sorted(tmp_path.glob("run*"), key=lambda path: int(path.name[3:]))
    for before, after in pairwise(runs):
        base = tmp_path / "base.json"
        assert 0 == main(["baseline", "save", str(before), "-o", str(base), "--force"])
        assert 0 == main(["gate", str(after), "--baseline", str(base)])
    code, out, _ = call("show", "--fail-on-drift")
    assert 1 == code
    assert "Drift found (1 drift, 1 steady)." in out
    assert "drift: tiny / rtn W4A8 / cpu, fd: against run 2" in out
    assert 0 == call("show")[0]
    assert 0 == call("show", "*", "psnr", "--fail-on-drift")[0]
    assert 0 == call("show", "--since", "5", "--fail-on-drift")[0]
    code, out, _ = call("show", "--json", "--fail-on-drift")
    found = json.loads(out)
    assert (1, 1) == (code, found["exit_code"])
    assert {"fd": "drift", "psnr": "steady"} == {s["metric"]: s["outcome"] for s in found["series"]}


def test_rules_are_the_gates(drifting, call, tmp_path):
    """A rule of the gate's file loosens the limit."""
    rules = tmp_path / "rules.toml"
    rules.write_text('schema = 1\n[[rule]]\nmetric = "fd"\nno-worse-than = {ratio = 1.5}\n')
    code, out, _ = call("show", "--rules", rules, "--fail-on-drift")
    assert (0, True) == (code, "No drift found (2 steady)" in out)


def test_show_has_a_row_for_each_run(drifting, call):
    """Value, interval, N, commit and machine, and the verdict below."""
    code, out, _ = call("show", CELL, "fd")
    assert 0 == code
    lines = out.splitlines()
    assert f"s: {CELL}, fd, seed 0, definition fd@" in lines[0]
    assert 10 == sum(line.strip().split()[0].isdigit() for line in lines[4:14])
    assert ["1", "0000000000", "100.5", "100.5", "100.5", "4"] == [
        word for number, word in enumerate(lines[4].split()) if number in (0, 2, 3, 4, 5, 6)
    ]
    assert "EPYC, 2 cores, no GPU; Python 3.11, torch 2.14.1" in out
    assert "Verdict: drift: against run 2" in out


def test_a_new_definition_begins_a_new_series(make_run, call):
    """The numbers of the old one are shown and never compared."""
    for number in range(6):
        call("add", make_run(fd=100.0, code=str(number)))
    for number in range(2):
        call("add", make_run(fd=300.0, images=8, code=f"n{number}"))
    code, out, _ = call("show", "--json", "--fail-on-drift")
    assert 0 == code
    assert [(6, "ended"), (2, "too few runs")] == [
        (len(one["points"]), one["outcome"]) for one in json.loads(out)["series"]
    ]
    code, out, _ = call("bisect", CELL, "fd")
    assert "Between run 6 and run 7" in out
    assert "Cause: definition. Numbers of different definitions do not compare" in out
    assert "n (4 and 8)" in out


@pytest.mark.parametrize(
    ("second", "cause", "words"),
    [
        ({"code": "b"}, "method", "quantizer 'rtn': code of rtn changed"),
        ({"torch": "2.15.0"}, "environment", "torch 2.14.1 -> 2.15.0"),
        ({"code": "b", "torch": "2.15.0"}, "undecided", "changed at once"),
    ],
)
def test_bisect_names_runs_and_cause(make_run, call, second, cause, words):
    """Between which two runs, and on which evidence."""
    for value in (100.0, 100.1):
        call("add", make_run(fd=value, error=1.0))
    call("add", make_run(fd=150.0, error=1.0, **second))
    code, out, _ = call("bisect", CELL, "fd")
    assert 0 == code
    assert "Between run 2 and run 3: 100.1 -> 150" in out
    assert f"Cause: {cause}." in out
    assert words in out
    found = json.loads(call("bisect", CELL, "fd", "--json")[1])
    assert (cause, [1, 2, 3]) == (found["cause"], found["runs"])


def test_bisect_says_noise(make_run, call):
    """What lies within the interval needs no cause."""
    for value in (100.0, 100.1, 99.9):
        call("add", make_run(fd=value, error=1.0, code=str(value)))
    assert "Cause: noise." in call("bisect", CELL, "fd")[1]
    assert "noise" == json.loads(call("bisect", CELL, "fd", "--json")[1])["cause"]


def test_bisect_hands_over_to_git(make_run, call, tmp_path, monkeypatch):
    """The commands that are printed find the commit; other codes than 0 and 1 skip one."""
    repo = tmp_path / "repo"
    repo.mkdir()
    monkeypatch.delenv("GIT_CEILING_DIRECTORIES")
    for name, value in (("AUTHOR", "n"), ("COMMITTER", "n")):
        monkeypatch.setenv(f"GIT_{name}_NAME", value)
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "e@example.org")

    def git(*words):
        done = subprocess.run(["git", *words], cwd=repo, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    commits = []
    for number in range(5):
        (repo / "code").write_text(str(number))
        git("add", "code")
        git("commit", "-q", "-m", f"number {number}")
        commits.append(git("rev-parse", "HEAD"))
    call("add", make_run(fd=1.0), "--commit", commits[0])
    call("add", make_run(fd=9.0, code="b"), "--commit", commits[4])
    command = "n=$(cat code); [ $n = 1 ] && exit_code=3 || exit_code=$((n >= 3)); (exit $exit_code)"
    code, out, _ = call("bisect", CELL, "fd", "--repo", repo, "--command", command)
    assert 0 == code
    start, run, reset = out.splitlines()[-3:]
    subprocess.run(shlex.split(start), check=True, capture_output=True)
    found = subprocess.run(shlex.split(run), check=True, capture_output=True, text=True)
    assert f"{commits[3]} is the first bad commit" in found.stdout
    subprocess.run(shlex.split(reset), check=True, capture_output=True)
    code, _, err = call("bisect", CELL, "fd", "--repo", tmp_path, "--command", "true")
    assert (2, True) == (code, "is not there" in err)


def test_plot_has_a_renderer_draw_the_choice(three, call, tmp_path):
    """It gets the chosen series with their verdicts."""
    assert (0, "history.html\n", "") == call("plot", CELL, "fd")
    assert "fd 3 too few runs" == (tmp_path / "history.html").read_text()


def test_a_real_run_says_what_its_numbers_are_made_of(tiny_suite, call, tmp_path):
    """Of runs that differ in the suite's calibration, records point to the method, and to that."""
    suite = str(tiny_suite(metrics=("paired", "bits"), images=2, steps=2))
    for images in ("2", "3"):
        run = str(tmp_path / f"real{images}")
        setting = f"calibration.images={images}"
        assert 0 == main(["run", suite, "--set", setting, "--run", run, "--no-report"])
        assert 0 == call("add", run)[0]
    (series,) = HistoryFile(tmp_path / "history.sqlite").series(Chosen(metric="psnr"))
    before, after = series.points
    assert len(before.measured.metric.replicates) > 1
    assert {"tfq-bench", "quantizer 'rtn'"} <= {one["what"] for one in before.ingredients}
    assert ("method", ("calibration.images 2 -> 3",)) == evidence(before, after)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("show", "tiny / rtn W4A8 / cpx"), 2, f"did you mean '{CELL}'"),
        (("show", "*", "fid"), 2, "no metric in 'history.sqlite' is called 'fid'"),
        (("show", "--since", "99"), 2, "no run in 'history.sqlite' has the number or commit '99'"),
        (("show", "--file", "none.sqlite"), 2, "found no such file"),
        (("bisect", "*", "*"), 2, "expected one metric of one cell, found 2"),
        (("bisect", CELL, "fd", "--repo", "."), 2, "--repo and --command need each other"),
        (("bisect", CELL, "fd", "--since", "3"), 5, "has one run of it"),
        (("plot", "-o", "x.png"), 2, "ends with '.html'"),
        (("plot", "--renderer", "html"), 2, "expected one that draws history"),
    ],
)
def test_mistakes_are_sentences(three, call, words, code, sentence):
    """What was expected and what was found."""
    found, _, err = call(*words)
    assert (code, True) == (found, sentence in err), err


def test_a_commit_is_hexadecimal(make_run, call):
    """A branch moves; its name says nothing tomorrow."""
    code, _, err = call("add", make_run(fd=1.0), "--commit", "main")
    assert (2, True) == (code, "expected 7 to 64 hexadecimal digits, found 'main'" in err)


def other_program(path):
    """An SQLite file that somebody else keeps."""
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE notes (text)")
    database.close()


def changed(path, statement):
    """Whatever was there, with one statement carried out by hand."""
    with sqlite3.connect(path) as database:
        database.execute(statement)
    database.close()


FOREIGN = {
    "text": lambda path: path.write_text("schema = 1\n" * 100),
    "another program's": other_program,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "zeroed": lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(40000)),
    "later": lambda path: changed(path, "PRAGMA user_version = 9"),
    "a number changed": lambda path: changed(path, "UPDATE numbers SET value = 1 WHERE run = 3"),
    "a number of another type": lambda path: changed(path, "UPDATE numbers SET plugins = x'ff'"),
    "numbers lost": lambda path: changed(path, "DELETE FROM numbers WHERE run = 2"),
    "a run lost": lambda path: changed(path, "DELETE FROM runs WHERE number = 2"),
    "facts changed": lambda path: changed(path, "UPDATE facts SET content = '{}'"),
    "facts lost": lambda path: changed(path, "DELETE FROM facts"),
    "no table": lambda path: changed(path, "DROP TABLE numbers"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_damaged_and_foreign_files_are_sentences(three, call, tmp_path, what):
    """Nothing of them is believed, and nothing is written into them."""
    path = tmp_path / "history.sqlite"
    if what == "another program's":
        path.unlink()
    FOREIGN[what](path)
    content = path.read_bytes()
    for words in (["show"], ["bisect", CELL, "fd"], ["plot"]):
        code, _, err = call(*words)
        assert (2, True) == (code, "history.sqlite'" in err), (words, err)
    if what in ("text", "another program's", "later"):
        assert 2 == call("add", tmp_path / "run1")[0]
    assert content == path.read_bytes()


def test_a_folder_is_no_history(make_run, call, tmp_path):
    """Reading and writing both say so."""
    (tmp_path / "history.sqlite").mkdir()
    code, _, err = call("show")
    assert (2, True) == (code, "found a folder" in err)
    code, _, err = call("add", make_run(fd=1.0))
    assert (2, True) == (code, "cannot write the history" in err)
