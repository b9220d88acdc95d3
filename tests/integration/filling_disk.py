"""Commands of tfq-bench on a disk that fills, each in a fork of a process that has torch already.

    python filling_disk.py SUITE

The suite is planned once, so that what is the same for all runs is known. Then an order is a line
of JSON: `arguments` of `tfq-bench`, and what `Disk` takes as `full`. The answer is a line too: the
exit code, what was told, and how often each process wrote. A fork finds the same files as a fresh
process, and a run with all its workers takes no longer than its work.
"""

import contextlib
import errno
import json
import os
import resource
import signal
import sys
import traceback
import types

import tfq_bench.cli.cell
import tfq_bench.cli.run
import tfq_bench.environment
import tfq_bench.pipeline.run
import tfq_bench.testing.tiny  # noqa: F401 - what every command would import, torch above all
from tfq_bench.cli import main
from tfq_bench.executors import process

EVENTS = ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate")
LONGEST = 300  # seconds of a command, before a signal ends it


class Disk:
    """Counts the writes of a process, and takes none from the n-th on.

    What is counted: files opened to be written, folders made, names changed, files made durable.
    From then on the system also refuses every byte, whichever library writes it.

    Args:
        full: `who` writes, `at` which of its writes the disk is full, and whether that write is
            `begun`: a file is made, and stays empty.
    """

    def __init__(self):
        self.who, self.writes, self.is_full = "nobody", 0, False
        self.full = {"who": None, "at": 0, "begun": False}
        sys.addaudithook(self._hook)
        fsync = os.fsync

        def counted(descriptor):
            self.write()
            fsync(descriptor)

        os.fsync = counted

    def begin(self, who):
        """From now on it is `who` that writes; a disk that is full remains so."""
        self.who, self.writes = who, 0

    def write(self):
        """Takes note of a write; OSError on a full disk."""
        self.writes += 1
        last = (self.who, self.writes) == (self.full["who"], self.full["at"])
        if self.is_full or (last and not self.full["begun"]):
            self._fill()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if last:
            self._fill()

    def _fill(self):
        self.is_full = True
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    def _hook(self, event, args):
        named = event == "open" and not isinstance(args[0], int)  # else it is open already
        if event in EVENTS or (named and (args[2] or 0) & os.O_CREAT):
            self.write()


disk = Disk()


def fork(who, arguments, count, streams):
    """The id of a process that runs the command; its standard streams are these descriptors."""
    child = os.fork()
    if child:
        return child
    signal.alarm(LONGEST)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, closefd=False) for number, mode in enumerate("rww")
    )
    disk.begin(who)
    code = 70
    try:
        code = main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        os.write(count, f"{who},{disk.writes}\n".encode())
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


class Worker:
    """What an executor sees of a `subprocess.Popen`."""

    def __init__(self, command, *, stdin, stdout, stderr, pass_fds):
        arguments = command[command.index("tfq_bench") + 1 :]
        who = f"worker {arguments[arguments.index('--stage') + 1]}"
        self.returncode = None
        self.pid = fork(who, arguments, counts[1], (stdin, stdout, stderr.fileno()))

    def poll(self):
        return self.returncode if self.returncode is not None else self.wait(os.WNOHANG)

    def wait(self, options=0):
        found, status = os.waitpid(self.pid, options)
        if found:
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def kill(self):
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def answer(arguments, full):
    """How the command ended: `code`, `told` and the `writes` of each process, by who it was."""
    global counts
    disk.full = full
    counts, told = os.pipe(), os.pipe()
    who = "run" if "--executor" in arguments else "inline"
    child = fork(who, arguments, counts[1], (nothing, told[1], told[1]))
    os.close(told[1])
    os.close(counts[1])
    with os.fdopen(told[0], errors="replace") as text, os.fdopen(counts[0]) as lines:
        said = text.read()
        writes = [line.split(",") for line in lines.read().splitlines()]
    _, status = os.waitpid(child, 0)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "told": said,
        "writes": {who: int(number) for who, number in writes},
    }


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        assert 0 == main(["plan", sys.argv[1]])
    counts, nothing = None, os.open(os.devnull, os.O_RDWR)
    process.subprocess = types.SimpleNamespace(Popen=Worker, DEVNULL=nothing)
    for order in sys.stdin:
        sys.stdout.write(json.dumps(answer(**json.loads(order))) + "\n")
        sys.stdout.flush()
