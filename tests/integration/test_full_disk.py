"""The disk fills at the n-th write: the run ends in words, and with room it goes on as if never.

6 instants in the short form, `TFQ_KILLS // 3` in a longer one, spread over what a quiet run writes
and over who writes: the run alone, the run beside its workers, and a worker in each stage.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROUNDS = int(os.environ.get("TFQ_KILLS", "20")) // 3
WRITERS = ("inline", "run", "worker")
APART = ("--executor", "process")


@pytest.fixture
def order(small_suite):
    """A function that runs the suite into a folder, on a disk that may fill; see `filling_disk`."""
    search = os.pathsep.join([os.environ["PYTHONPATH"], str(Path(__file__).parents[2])])
    script = Path(__file__).with_name("filling_disk.py")
    with subprocess.Popen(
        [sys.executable, str(script), str(small_suite)],
        env={**os.environ, "PYTHONPATH": search, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:

        def run(folder, *more, who=None, at=0, begun=False):
            arguments = ["run", str(small_suite), "--run", str(folder), "--no-report", *more]
            full = {"who": who, "at": at, "begun": begun}
            server.stdin.write(json.dumps({"arguments": arguments, "full": full}) + "\n")
            server.stdin.flush()
            return json.loads(server.stdout.readline())

        yield run
        server.stdin.close()


def instants(writes, rounds):
    """Who writes, and the write that fails; those of one writer spread over all it writes."""
    source = random.Random(0)
    stages = [who for who in writes if who.startswith("worker")]
    for number in range(rounds):
        writer, turn = WRITERS[number % 3], number // 3
        if writer == "worker":
            who = stages[turn * 2 % len(stages)]
            at = source.randrange(1, writes[who] + 1)
        else:
            who, share = writer, (turn + source.random()) / -(-rounds // 3)
            at = 1 + int(share * writes[who])
        yield who, at, source.random() < 0.5


def test_fuzz_full_at_any_write(order, numbers, sealed, scratch, tmp_path):
    """Exit code 2 or 3 in a sentence; then equal numbers, and nothing finished is done twice."""
    alone, apart = order(tmp_path / "alone"), order(tmp_path / "apart", *APART)
    assert (0, 0) == (alone["code"], apart["code"]), (alone, apart)
    expected, writes = numbers(tmp_path / "alone"), {**alone["writes"], **apart["writes"]}
    assert expected
    assert expected == numbers(tmp_path / "apart")
    stages = ("calibrate", "quantize", "lower", "sample", "evaluate")
    assert {"inline", "run", *(f"worker {stage}" for stage in stages)} == writes.keys()
    failed = 0
    for number, (who, at, begun) in enumerate(instants(writes, ROUNDS)):
        where = f"{who}, write {at} of {writes[who]}, begun: {begun}"
        folder = tmp_path / f"round-{number}"
        more = () if who == "inline" else APART
        first = order(folder, *more, who=who, at=at, begun=begun)
        told = first["told"]
        assert "Traceback" not in told, (where, told)
        if first["code"]:
            assert first["code"] in (2, 3), (where, told)
            assert "no space is left" in told or "too large" in told, (where, told)
            failed += 1
        else:
            assert expected == numbers(folder), where  # nothing that counts was left to write
        held = sealed(folder)
        again = order(folder)
        assert 0 == again["code"], (where, again["told"])
        assert held.items() <= sealed(folder).items(), where
        assert expected == numbers(folder), where
        assert [] == [p for p in folder.rglob(".*") if p.is_file() or p.name.startswith(".new-")]
        assert [] == list(scratch.glob("tfq-bench-*"))
    assert failed > ROUNDS // 2
