"""Commands of tfq-bench, each in a fork of one process that has imported what all of them import.

    python forked_commands.py

An order is a line of JSON, `arguments` of `tfq-bench` with the
`environment` of its process, and the answer is a line too: the exit `code`, what was `told` on
both streams, and the `group` of the process, which begins a session of its own.

A fork finds the same files as a fresh process, and what a fresh one reads at its start is read
again: the environment, PYTHONPATH and the `sitecustomize` on it. Workers of the command are fresh
processes. Four of five seconds of a tiny run would be the import of torch.
"""

import atexit
import contextlib
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import traceback

import tfq_bench.cli.run
import tfq_bench.pipeline.run
import tfq_bench.provenance.environment
import tfq_bench.testing.tiny  # noqa: F401 - what every command would import, torch above all
from tfq_bench.cli import main
from tfq_bench.plan.stage_keys import STAGES
from tfq_bench.provenance.running_code import RunningCode

LONGEST = 400  # seconds of a command, before a signal ends it


def begin(arguments, environment, path):
    """Makes this fork what a fresh process is when its command begins."""
    os.setsid()
    signal.alarm(LONGEST)
    os.environ.clear()
    os.environ.update(environment)
    search = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [os.getcwd(), *search, *path]  # noqa: PTH109 - as the interpreter does
    sys.orig_argv = [sys.executable, "-m", "tfq_bench", *arguments]
    atexit._clear()
    sys.modules.pop("sitecustomize", None)
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", search)
    if spec is not None:
        module = sys.modules["sitecustomize"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


def answer(arguments, environment, path):
    """How the command ended."""
    told, write = os.pipe()
    child = os.fork()
    if not child:
        code = 70
        try:
            for number, stream in enumerate((os.open(os.devnull, os.O_RDONLY), write, write)):
                os.dup2(stream, number)
            os.closerange(3, 256)  # none of the server's: who holds `told` keeps it waiting
            sys.stdin, sys.stdout, sys.stderr = (
                os.fdopen(number, mode, closefd=False) for number, mode in enumerate("rww")
            )
            begin(arguments, environment, path)
            code = main(arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                atexit._run_exitfuncs()
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    os.close(write)
    with os.fdopen(told, errors="replace") as text:
        said = text.read()
    _, status = os.waitpid(child, 0)
    return {"code": os.waitstatus_to_exitcode(status), "told": said, "group": child}


if __name__ == "__main__":
    own = set(os.environ["PYTHONPATH"].split(os.pathsep))
    installed = [folder for folder in sys.path[1:] if folder not in own]
    RunningCode().facts(STAGES)  # what is known of a file's text is kept by its content
    for order in sys.stdin:
        sys.stdout.write(json.dumps(answer(path=installed, **json.loads(order))) + "\n")
        sys.stdout.flush()
