"""The disk fills at the n-th write: the run ends in words, and with room it goes on as if never.

6 instants in the short form, `TFQ_KILLS // 3` in a longer one, spread over what a quiet run writes
and over who writes: the run alone, the run beside its workers, and a worker in each stage.
"""

import os
import random

import pytest

ROUNDS = int(os.environ.get("TFQ_KILLS", "20")) // 3
WRITERS = ("inline", "run", "worker")
APART = ("--executor", "process")

GLUTTON = """
import os, resource, signal, types

WHO, AT, COUNT = os.environ.get("FULL_WHO"), int(os.environ.get("FULL_AT", "0")), "FULL_COUNT"
BEGUN = "FULL_BEGUN" in os.environ  # the write that fills the disk makes a file that stays empty
NO_SPACE = (28, "No space left on device")
EVENTS = ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate")
who, writes, full, telling = None, 0, False, False


def write():
    global writes, full
    if telling:
        return
    writes += 1
    if who.startswith("worker "):
        tell()  # an idle one is killed where it waits
    last = (who, writes) == (WHO, AT)
    if last:  # from now on the system refuses every byte, whichever library writes it
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if full or (last and not BEGUN):
        full = True
        raise OSError(*NO_SPACE)
    full = full or last


def hook(event, args):
    named = event == "open" and not isinstance(args[0], int)  # else it is open already
    if event in EVENTS or (named and (args[2] or 0) & os.O_CREAT):
        write()


def counted(descriptor, real=os.fsync):
    write()
    real(descriptor)


def tell():
    global telling
    if COUNT in os.environ:
        telling = True
        with open(os.environ[COUNT], "a") as file:
            file.write(f"{who},{writes}\\n")
        telling = False


class Worker:
    # What an executor sees of a `subprocess.Popen`: a fork, which has torch already.

    def __init__(self, command, *, stdin, stdout, stderr, pass_fds, env):
        self.returncode = None
        self.pid = os.fork()
        if not self.pid:
            self.work(command[command.index("tfq_bench") + 1 :], stderr.fileno())

    def work(self, arguments, log):
        global who, writes
        who, writes, code = "worker", 0, 70
        try:
            signal.alarm(400)
            os.dup2(log, 2)
            sys.stdout = sys.stderr = os.fdopen(2, "w", closefd=False)
            from tfq_bench.pipeline import run

            def execute(context, task, *more, real=run.execute_task):
                global who, writes
                who, writes = f"worker {task.stage}", 0
                return real(context, task, *more)

            run.execute_task = execute
            code = main(arguments)
            sys.stderr.flush()
        finally:
            os._exit(code)

    def poll(self):
        return self.wait(os.WNOHANG)

    def wait(self, options=0):
        if self.returncode is None:
            found, status = os.waitpid(self.pid, options)
            if found:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def kill(self):
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


if role == "run":
    import atexit

    from tfq_bench.cli import main
    from tfq_bench.executors import worker

    worker.subprocess = types.SimpleNamespace(Popen=Worker, DEVNULL=None)
    atexit.register(tell)
    os.fsync, sys.dont_write_bytecode = counted, True
    who = "run" if "--executor" in sys.orig_argv else "inline"
    sys.addaudithook(hook)
"""


@pytest.fixture
def begin(begin, sabotage):
    """`begin` on a disk that fills where the environment says: before, or within, a write.

    A write makes a file, a folder, another name, or something durable.
    """
    sabotage(GLUTTON)
    return begin


@pytest.fixture
def writes(begin, tmp_path):
    """How often each process of a quiet run writes: `inline`, `run`, `worker STAGE`."""
    count, found = tmp_path / "count", {}
    for folder, more in (("alone", ()), ("apart", APART)):
        code, told, _ = begin(tmp_path / folder, *more, FULL_COUNT=str(count))
        assert 0 == code, told
    for line in count.read_text().splitlines():
        who, _, number = line.partition(",")
        found[who] = max(int(number), found.get(who, 0))
    return found


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


def test_fuzz_full_at_any_write(begin, writes, numbers, sealed, scratch, tmp_path):
    """Exit code 2 or 3 in a sentence; then equal numbers, and nothing finished is done twice."""
    expected = numbers(tmp_path / "alone")
    assert expected
    assert expected == numbers(tmp_path / "apart")
    stages = ("calibrate", "quantize", "lower", "sample", "evaluate")
    assert {"inline", "run", *(f"worker {stage}" for stage in stages)} == writes.keys()
    failed = 0
    for number, (who, at, begun) in enumerate(instants(writes, ROUNDS)):
        where = f"{who}, write {at} of {writes[who]}, begun: {begun}"
        folder = tmp_path / f"round-{number}"
        more = () if who == "inline" else APART
        full = {"FULL_WHO": who, "FULL_AT": str(at), **({"FULL_BEGUN": "1"} if begun else {})}
        code, told, _ = begin(folder, *more, **full)
        assert "Traceback" not in told, (where, told)
        if code:
            assert code in (2, 3), (where, told)
            assert "no space is left" in told or "too large" in told, (where, told)
            failed += 1
        else:
            assert expected == numbers(folder), where  # nothing that counts was left to write
        held = sealed(folder)
        code, told, _ = begin(folder)
        assert 0 == code, (where, told)
        assert held.items() <= sealed(folder).items(), where
        assert expected == numbers(folder), where
        assert [] == [p for p in folder.rglob(".*") if p.is_file() or p.name.startswith(".new-")]
        assert [] == list(scratch.glob("tfq-bench-*"))
    assert failed > ROUNDS // 2
