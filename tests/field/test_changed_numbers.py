"""Numbers that were changed, lost, doubled or moved by hand or by a disk never pass for true ones.

One tiny run is the truth. Copies of its files are damaged byte by byte and field by field; whatever
a command then answers, it is the original's answer, or it says that something is wrong.
"""

import contextlib
import io
import json
import logging
import shutil
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tfq_bench
from tfq_bench.cli import main
from tfq_bench.errors import StoreError
from tfq_bench.store import records
from tfq_bench.store.run import RunFolder
from tfq_bench.store.seals import seal
from tfq_bench.testing.fuzzing import changed, damaged, fuzz

RULES = """\
schema = 1

[[rule]]
metric = "psnr"
no-worse-than = { margin = 0.5 }

[[rule]]
metric = "*"
cell = "tiny / rtn W8A8 / simulate"
no-worse-than = { ratio = 1.1 }
on-missing = "fail"

[[rule]]
metric = "latency-ms"
ignore = true
"""

ANSWERS = {0, 1, 2, 4, 5}
"""What the exit code of a gate, a comparison or a report may be; 70 and tracebacks are bugs."""

_made = {}


@pytest.fixture
def truth(tiny_suite, tmp_path, tmp_path_factory):
    """A finished run, its baseline, rules, and what the gate says of them; made once."""
    if not _made:
        assert 0 == main(["run", str(tiny_suite()), "--run", str(tmp_path / "r"), "--no-report"])
        home = tmp_path_factory.mktemp("truth")
        shutil.copytree(tmp_path / "r", home / "run")
        assert 0 == main(["baseline", "save", str(home / "run"), "-o", str(home / "base.json")])
        (home / "rules.toml").write_text(RULES)
        found = SimpleNamespace(home=home, run=home / "run")
        found.lines = (found.run / "records.jsonl").read_bytes()
        found.gate = gate(home)
        found.rows = rows(tfq_bench.load_records(found.run))
        assert 0 == found.gate[0]
        _made["truth"] = found
    return _made["truth"]


@pytest.fixture
def copy(truth, tmp_path):
    """A copy of the truth that a test may damage."""
    shutil.copytree(truth.home, tmp_path / "copy")
    return tmp_path / "copy"


def call(*argv):
    """Exit code, standard output and standard error of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in argv])
    return code, out.getvalue(), err.getvalue()


def gate(home, *more):
    """Exit code and output of the gate on what lies in `home`."""
    code, out, _ = call(
        "gate", home / "run", "--baseline", home / "base.json", "--rules", home / "rules.toml",
        "--json", *more,
    )  # fmt: skip
    return code, out


def edit(path, old, new):
    """Changes one text in a file that holds it."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def reseal_lines(lines):
    """Lines of records with checksums as a writer would have made them."""
    done, check = [], b""
    for line in lines:
        body = line.rpartition(b',"check":')[0] or line.rstrip(b"\n").removesuffix(b"}")
        check = records._checksum(check, body)
        done.append(body + b',"check":"%b"}\n' % check)
    return b"".join(done)


def psnr(path):
    """The line of `records.jsonl` with a PSNR, and its number."""
    lines = path.read_bytes().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if b'"name":"psnr"' in line)
    return lines, at, json.loads(lines[at])["metric"]["value"]


def change_value(lines, at, value):
    """Adds five to the number, and leaves its checksum alone."""
    return [
        *lines[:at],
        lines[at].replace(str(value).encode(), str(value + 5).encode(), 1),
        *lines[at + 1 :],
    ]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change_value, "expected the checksum"),
        (lambda lines, at, _: lines[:at] + lines[at + 1 :], "lost, doubled or moved"),
        (lambda lines, at, _: [*lines[: at + 1], *lines[at:]], "lost, doubled or moved"),
        (lambda lines, at, _: [lines[at], *lines[:at], *lines[at + 1 :]], "expected the checksum"),
        (lambda lines, *_: lines[::-1], "expected the checksum"),
        (lambda lines, *_: lines + lines, "expected the checksum"),
        (lambda lines, *_: [line.replace(b"\n", b"\r\n") for line in lines], "expected a record"),
        (lambda lines, at, _: [*lines[:at], b"[" * 100_000 + b"\n", *lines[at:]], "nested more"),
        (lambda lines, at, _: [*lines[:at], b"\xff\xfe\n", *lines[at:]], "line"),
    ],
)  # fmt: skip
def test_changed_records_are_refused_by_every_reader(copy, damage, words):
    """With the file, the line and what to do; the suite then runs again without computing."""
    path = copy / "run" / "records.jsonl"
    path.write_bytes(b"".join(damage(*psnr(path))))
    base = ("--baseline", copy / "base.json")
    for argv in (
        ("gate", copy / "run", *base),
        ("compare", copy / "run"),
        ("status", copy / "run"),
        ("baseline", "save", copy / "run", "-o", copy / "other.json"),
    ):
        code, _, err = call(*argv)
        assert 2 == code, argv
        assert words in err
        assert "records.jsonl', line" in err
        assert "Run the suite again" in err
    with pytest.raises(StoreError, match="line"):
        tfq_bench.load_records(copy / "run")


def test_lines_lost_at_the_end_leave_their_cell_unfinished(truth, copy, caplog):
    """No chain can know them; the count in every record does."""
    path = copy / "run" / "records.jsonl"
    lines = truth.lines.splitlines(keepends=True)
    for kept in range(len(lines)):
        path.write_bytes(b"".join(lines[:kept]))
        code, out = gate(copy)
        assert 1 == code, kept
        assert "not finished" in out
    code, out, _ = call("status", copy / "run", "--json")
    assert "unfinished" in {cell["status"] for cell in json.loads(out)["cells"]}
    assert "not finished" in call("compare", copy / "run")[1]
    with caplog.at_level(logging.WARNING, "tfq_bench.store"):
        tfq_bench.load_records(copy / "run")
    assert "are not finished" in caplog.text


@pytest.mark.parametrize("damage", ["edited", "gone", "older", "torn"])
def test_records_are_made_again_from_artefacts(tiny_suite, tmp_path, truth, damage, caplog):
    """Damaged, deleted and older records: the same command heals them and computes nothing."""
    run, suite = tmp_path / "r", str(tiny_suite())
    assert 0 == main(["run", suite, "--run", str(run), "--no-report"])
    path = run / "records.jsonl"
    whole = path.read_bytes()
    before = RunFolder.open(run).records()
    stamps = {p: p.stat().st_mtime_ns for p in (run / "artefacts").rglob("*") if p.is_file()}
    if damage == "edited":
        path.write_bytes(b"".join(change_value(*psnr(path))))
    elif damage == "gone":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        old = [json.loads(line) for line in whole.splitlines()]
        text = "".join(
            json.dumps({k: v for k, v in o.items() if k != "check"} | {"schema": 1}) + "\n"
            for o in old
        )
        path.write_text(text)
        edit(run / "plan.json", '"schema": 2', '"schema": 1')
        code, _, err = call("status", run)
        assert (2, True) == (code, "expected schema 2, found 1. Run the suite again" in err)
    assert 0 == main(["run", suite, "--run", str(run), "--no-report"])
    assert before == RunFolder.open(run).records()
    assert stamps == {
        p: p.stat().st_mtime_ns for p in (run / "artefacts").rglob("*") if p.is_file()
    }
    aside = list(run.glob("records.jsonl.damaged-*"))
    assert (damage in ("edited", "older")) == bool(aside)


def test_numbers_of_an_evaluation_that_is_not_planned_are_old(copy):
    """An edit of a metric moves its key; until the suite runs again, the old value is not shown."""
    run = RunFolder.open(copy / "run")
    plan = run.plan()
    for cell in plan["cells"]:
        cell["keys"]["evaluate"] = [f"new{key}" for key in cell["keys"]["evaluate"]]
    run.write("", plan)
    assert () == RunFolder.open(run.path).records()
    code, out = gate(copy)
    assert (1, True) == (code, "it has no results yet" in out)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"metric": "psnr", "value": ', '"metric": "psnr", "value": 1'),
        ('"n": 4', '"n": 5'),
        ('"direction": "higher"', '"direction": "lower"'),
        ('"level": 0.95', '"level": 0.99'),
        ('"margin": 0.25', '"margin": 2.5'),
        ('"label": "tiny', '"label": "tinny'),
        ('"created_from": "', '"created_from": "0'),
        ('"volatile": false', '"volatile": true'),
    ],
)
def test_a_changed_baseline_is_refused(copy, old, new):
    """Exit code 2: it comes from version control or is saved anew."""
    edit(copy / "base.json", old, new)
    code, _, err = call("gate", copy / "run", "--baseline", copy / "base.json")
    assert 2 == code
    assert "expected the checksum" in err
    assert "Take it from version control" in err


def test_a_line_lost_or_doubled_in_a_baseline_is_refused(copy):
    """Also when what is left is a baseline in form."""
    content = json.loads((copy / "base.json").read_text())
    for values in (content["values"][1:], [*content["values"], content["values"][0]]):
        (copy / "base.json").write_text(json.dumps(content | {"values": values}))
        assert 2 == gate(copy)[0]
        sealed = content | {"values": values}
        (copy / "base.json").write_text(json.dumps(sealed | {"checksum": seal(sealed)}))
        assert gate(copy)[0] in (0, 2)  # a sealed baseline with fewer numbers is a reviewed one
    assert "found it twice" in call("baseline", "show", copy / "base.json")[2]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"status": "planned"', '"status": "skipped"'),
        ('"id": "', '"id": "0'),
        ('"seed": "0"', '"seed": "1"'),
    ],
)
def test_a_changed_plan_is_refused_until_the_suite_runs_again(copy, old, new):
    """A cell that an edit takes out of the plan would be out of the gate as well."""
    edit(copy / "run" / "plan.json", old, new)
    code, _, err = call("gate", copy / "run", "--baseline", copy / "base.json")
    assert (2, True) == (code, "Run the suite again in this folder" in err)


def test_a_changed_environment_is_left_out_and_the_rest_goes_on(copy, caplog):
    """Times then have unknown hardware and do not compare; everything else does."""
    (path,) = (copy / "run").glob("env-*.json")
    edit(path, '"cores": ', '"cores": 1')
    with caplog.at_level(logging.WARNING, "tfq_bench.store"):
        assert 0 == gate(copy)[0]
    assert "it was changed after it was written" in caplog.text
    edit(
        copy / "rules.toml",
        'metric = "latency-ms"\nignore = true',
        'metric = "latency-ms"\nno-worse-than = { ratio = 99 }',
    )
    code, out = gate(copy)
    assert (4, True) == (code, "found unknown" in out)


def readers(home):
    """What all who read it say: the gate, the exit codes of the others, the rows of the table."""
    codes = {
        call(*argv)[0]
        for argv in (
            ("compare", home / "run"),
            ("status", home / "run"),
            ("baseline", "show", home / "base.json"),
        )
    }
    try:
        table = rows(tfq_bench.load_records(home / "run"))
    except StoreError:
        table = set()
    return gate(home), codes, table


def rows(frame):
    """What a table of records says, whatever types pandas found for columns that are empty."""
    names = ["cell", "metric", "value", "low", "high", "level", "unit", "definition", "replicates"]
    return {repr(row) for row in frame[names].itertuples(index=False) if row.metric is not None}


def place(home, name, content):
    """A fresh copy of the truth with one file replaced."""
    target = home / name
    target.write_bytes(content)


@fuzz(70)
@given(data=st.data())
def test_fuzz_records(truth, copy, data):
    """A changed line is the original's answer, or a refusal."""
    place(copy, "run/records.jsonl", data.draw(damaged(truth.lines)))
    judged, codes, table = readers(copy)
    assert {judged[0], *codes} <= ANSWERS
    assert judged[0] != 0 or judged == truth.gate
    assert table <= truth.rows


@fuzz(20)
@given(data=st.data())
def test_fuzz_records_that_were_sealed_again(truth, copy, data):
    """Whatever a field holds, it is a sentence or a number: never a traceback."""
    lines = truth.lines.splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    content = data.draw(changed({k: v for k, v in json.loads(lines[at]).items() if k != "check"}))
    lines[at] = json.dumps(content).encode()
    place(copy, "run/records.jsonl", reseal_lines(lines))
    assert gate(copy)[0] in ANSWERS
    assert call("compare", copy / "run")[0] in ANSWERS
    with contextlib.suppress(StoreError):
        tfq_bench.load_records(copy / "run")


@fuzz(30)
@given(data=st.data())
def test_fuzz_baselines(truth, copy, data):
    """Changed in bytes: refused. Changed in fields and sealed again: no traceback."""
    original = (truth.home / "base.json").read_bytes()
    place(copy, "base.json", data.draw(damaged(original)))
    judged, codes, table = readers(copy)
    assert {judged[0], *codes} <= ANSWERS
    assert judged[0] != 0 or judged == truth.gate
    assert table <= truth.rows
    content = data.draw(changed(json.loads(original)))
    if isinstance(content, dict):
        with contextlib.suppress(ValueError):
            content["checksum"] = seal(content)
    place(copy, "base.json", json.dumps(content).encode())
    assert gate(copy)[0] in ANSWERS
    assert call("baseline", "show", copy / "base.json")[0] in ANSWERS


@fuzz(30)
@given(data=st.data())
def test_fuzz_rules(truth, copy, data):
    """Other rules may judge otherwise, but by the original numbers."""
    place(copy, "rules.toml", data.draw(damaged(RULES.encode())))
    code, out = gate(copy)
    assert code in ANSWERS
    if out:
        known = {
            (v["cell"], v["metric"]): (v["value"], v["baseline"])
            for v in json.loads(truth.gate[1])["verdicts"]
        }
        for v in json.loads(out)["verdicts"]:
            there = known.get((v["cell"], v["metric"]))
            assert there is None or (v["value"], v["baseline"]) == there
        assert code != 0 or not json.loads(out)["notes"]


@fuzz(16)
@given(data=st.data())
def test_fuzz_plans(truth, copy, data):
    """Changed in bytes: refused. Changed in fields and sealed again: no traceback."""
    original = (truth.run / "plan.json").read_bytes()
    place(copy, "run/plan.json", data.draw(damaged(original)))
    judged, codes, table = readers(copy)
    assert {judged[0], *codes} <= ANSWERS
    assert judged[0] != 0 or judged == truth.gate
    assert table <= truth.rows
    content = data.draw(changed(json.loads(original)))
    if isinstance(content, dict):
        with contextlib.suppress(ValueError):
            content["checksum"] = seal(content)
    place(copy, "run/plan.json", json.dumps(content).encode())
    for argv in (("compare", copy / "run"), ("status", copy / "run")):
        assert call(*argv)[0] in ANSWERS
    assert gate(copy)[0] in ANSWERS


@fuzz(8)
@given(data=st.data())
def test_fuzz_environments(truth, copy, data):
    """They say where, not what: the gate's answer is the original's."""
    (path,) = (truth.run).glob("env-*.json")
    place(copy, f"run/{path.name}", data.draw(damaged(path.read_bytes())))
    assert truth.gate == gate(copy)
