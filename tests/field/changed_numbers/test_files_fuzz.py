"""Files damaged byte by byte and field by field: the original's answer, or a refusal."""

import contextlib
import json

from hypothesis import given
from hypothesis import strategies as st

import tfq_bench
from tfq_bench.errors import StoreError
from tfq_bench.store import records
from tfq_bench.store.seals import seal
from tfq_bench.testing.fuzzing import changed, damaged, fuzz

from .answers import ANSWERS, RULES, call, gate, rows


def reseal_lines(lines):
    """Lines of records with checksums as a writer would have made them."""
    done, check = [], b""
    for line in lines:
        body = line.rpartition(b',"check":')[0] or line.rstrip(b"\n").removesuffix(b"}")
        check = records._checksum(check, body)
        done.append(body + b',"check":"%b"}\n' % check)
    return b"".join(done)


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


def resealed(data, original):
    """Bytes of a file with fields changed, sealed again where it still can be."""
    content = data.draw(changed(json.loads(original)))
    if isinstance(content, dict):
        with contextlib.suppress(ValueError):
            content["checksum"] = seal(content)
    return json.dumps(content).encode()


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
    place(copy, "base.json", resealed(data, original))
    assert gate(copy)[0] in ANSWERS
    assert call("baseline", "show", copy / "base.json")[0] in ANSWERS


@fuzz(30)
@given(data=st.data())
def test_fuzz_rules(truth, copy, data):
    """Other rules may judge otherwise, but by the original numbers."""
    place(copy, "rules.toml", data.draw(damaged(RULES.encode())))
    code, out = gate(copy)
    assert code in ANSWERS
    told = json.loads(out)
    if "error" in told:
        assert code != 0
    else:
        known = {
            (v["cell"], v["metric"]): (v["value"], v["baseline"])
            for v in json.loads(truth.gate[1])["verdicts"]
        }
        for v in told["verdicts"]:
            there = known.get((v["cell"], v["metric"]))
            assert there is None or (v["value"], v["baseline"]) == there
        assert code != 0 or not told["notes"]


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
    place(copy, "run/plan.json", resealed(data, original))
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
