"""The disk fills at the n-th write: the run ends in words, and with room it goes on as if never.

6 instants in the short form, `TFQ_KILLS // 3` in a longer one, spread over what a quiet run writes
and over who writes: the run alone, the run beside its workers, and a worker in each stage.
"""

import os
import random

import pytest

ROUNDS = int(os.environ.get("TFQ_KILLS", "20")) // 3
WRITERS = ("inline", "run", "worker")

GLUTTON = """
import errno, os, resource

WHO = f"{role} {sys.orig_argv[sys.orig_argv.index('--stage') + 1]}" if role == "worker" else role
AT = int(os.environ["FULL_AT"]) if os.environ.get("FULL_WHO") == WHO else 0
COUNT = os.environ.get("FULL_COUNT")
calls = 0


def makes(name, args):
    return name != "open" or args[1] & os.O_CREAT


def counted(name, real):
    def call(*args, **kwargs):
        global calls
        if makes(name, args):
            calls += 1
            if calls == AT:  # what other libraries write, and child processes, is refused as well
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            if AT and calls >= AT:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *map(str, args[:1]))
        return real(*args, **kwargs)
    return call


if AT or (COUNT and role in ("run", "worker")):
    for name in ("fsync", "replace", "rename", "mkdir", "open"):
        real = getattr(os, name)
        setattr(os, name, counted(name, real))
        if real in os.supports_dir_fd:
            os.supports_dir_fd.add(getattr(os, name))
    if COUNT:
        import atexit
        atexit.register(lambda: open(COUNT, "a").write(f"{WHO},{calls}\\n"))
"""


@pytest.fixture
def writes(begin, sabotage, tmp_path):
    """How often each process of a quiet run writes: by `inline`, `run`, `worker STAGE`."""
    sabotage(GLUTTON)
    found = {}
    for folder, more in (("quiet", ()), ("apart", ("--executor", "process"))):
        count = tmp_path / f"count-{folder}"
        assert 0 == begin(tmp_path / folder, *more, FULL_COUNT=str(count))[0]
        for line in count.read_text().splitlines():
            who, _, calls = line.partition(",")
            found["inline" if folder == "quiet" else who] = int(calls)
    return found


def instants(writes, rounds):
    """Who writes, and the write that fails; those of one writer spread over all it writes."""
    source = random.Random(0)
    stages = [who for who in writes if who.startswith("worker")]
    for number in range(rounds):
        writer, turn = WRITERS[number % 3], number // 3
        if writer == "worker":
            who = stages[turn * 2 % len(stages)]
            yield who, source.randrange(1, writes[who] + 1)
        else:
            share = (turn + source.random()) / -(-rounds // 3)
            yield writer, 1 + int(share * writes[writer])


def test_fuzz_full_at_any_write(begin, writes, numbers, sealed, scratch, tmp_path):
    """Exit code 2 or 3 in a sentence; then equal numbers, and nothing finished is done twice."""
    expected = numbers(tmp_path / "quiet")
    assert expected
    assert {"inline", "run", "worker calibrate", "worker evaluate"} < writes.keys()
    failed = 0
    for number, (who, at) in enumerate(instants(writes, ROUNDS)):
        told_of = f"{who}, write {at} of {writes[who]}"
        folder = tmp_path / f"round-{number}"
        process = () if who == "inline" else ("--executor", "process")
        full = {"FULL_WHO": "run" if who == "inline" else who, "FULL_AT": str(at)}
        code, told, _ = begin(folder, *process, **full)
        assert "Traceback" not in told, (told_of, told)
        if code:
            assert code in (2, 3), (told_of, told)
            assert "no space is left" in told or "too large" in told, (told_of, told)
            failed += 1
        else:
            assert expected == numbers(folder), told_of  # nothing that counts was left to write
        held = sealed(folder)
        code, told, _ = begin(folder)
        assert 0 == code, (told_of, told)
        assert held.items() <= sealed(folder).items(), told_of
        assert expected == numbers(folder), told_of
        assert [] == [p for p in folder.rglob(".*") if p.is_file() or p.name.startswith(".new-")]
        assert [] == list(scratch.glob("tfq-bench-*"))
    assert failed > ROUNDS // 2
