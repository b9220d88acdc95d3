"""What a plugin does while it is discovered stays with it: it is broken, all else works.

Each kind is a plugin of a few lines. All are installed at once, beside sound ones before, between
and behind them; one command lists them, and then each is looked at.
"""

import json
import sys

import pytest

HOOK = """
from tfq_bench import api

@api.hookimpl
def tfq_metrics():
    {body}
"""


def hook(body):
    """A plugin whose hook `tfq_metrics` has this body."""
    return HOOK.format(body=body.replace("\n", "\n    "))


def provider(**fields):
    """A plugin with one metric whose fields are these expressions."""
    given = {"name": "'odd'", "summary": "''", "factory": "'fractions:Fraction'", **fields}
    return hook(f"yield api.MetricProvider({', '.join(f'{k}={v}' for k, v in given.items())})")


def option(**fields):
    """A plugin with one metric with one option whose fields are these expressions."""
    given = {"name": "'k'", "kind": "'int'", "default": "1", "help": "''", **fields}
    text = ", ".join(f"{k}={v}" for k, v in given.items())
    return provider(options=f"(api.Option({text}),)")


FINE = "yield api.MetricProvider(name='{0}', summary='', factory='fractions:Fraction')"

# fmt: off
# Name of the kind, source, and what the reason says.
ENDS = [
    ("exit-0", "import os; os._exit(0)", "ends the process with exit code 0"),
    ("exit-3", "import os; os._exit(3)", "ends the process with exit code 3"),
    ("exit-in-hook", hook("import os; os._exit(0)"), "ends the process with exit code 0"),
    ("exit-in-thread", "import os, threading, time\n"
     "threading.Thread(target=os._exit, args=(0,)).start(); time.sleep(60)", "exit code 0"),
    ("exit-in-generator", hook(FINE.format("half") + "\nimport os; os._exit(0)"), "exit code 0"),
    ("system-exit", "raise SystemExit(0)", "SystemExit: 0"),
    ("system-exit-hook", hook("raise SystemExit"), "SystemExit"),
    ("sigsegv", "import ctypes; ctypes.string_at(0)", "by signal SIGSEGV"),
    ("abort", "import os; os.abort()", "by signal SIGABRT"),
    ("sigkill", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "by signal SIGKILL"),
    ("sigterm", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "by signal SIGTERM"),
    ("alarm", "import signal, time; signal.alarm(1); time.sleep(60)", "by signal SIGALRM"),
    ("group-kill", "import os, signal; os.killpg(0, signal.SIGTERM)", "by signal SIGTERM"),
    ("exec", "import os; os.execv('/bin/true', ['true'])", "ends the process with exit code 0"),
    ("stack", "import sys; sys.setrecursionlimit(10**9)\ndef f(): f()\n"
     "class A:\n    def __repr__(self): return repr([self])\nrepr(A())",
     "by signal SIGSEGV" if sys.version_info < (3, 12) else "RecursionError"),
    ("daemonize", "import os\nif os.fork(): os._exit(0)\nos.setsid()", "exit code 0"),
    ("fork", "import os; os.fork()", None),
]
RAISES = [
    ("runtime-error", "raise RuntimeError('no')", "RuntimeError: no"),
    ("syntax-error", "def broken(:", "SyntaxError"),
    ("no-module", "import no_such_module", "No module named 'no_such_module'"),
    ("keyboard-interrupt", "raise KeyboardInterrupt", "KeyboardInterrupt"),
    ("keyboard-hook", hook("raise KeyboardInterrupt"), "KeyboardInterrupt"),
    ("cancelled", "import asyncio; raise asyncio.CancelledError", "CancelledError"),
    ("cancelled-hook", hook("import asyncio; raise asyncio.CancelledError"), "CancelledError"),
    ("generator-exit", "raise GeneratorExit", "GeneratorExit"),
    ("base-exception", "class Odd(BaseException): pass\nraise Odd('odd')", "Odd: odd"),
    ("base-hook", hook("raise BaseException('odd')"), "BaseException: odd"),
    ("group", "raise BaseExceptionGroup('g', [KeyboardInterrupt()])", "BaseExceptionGroup"),
    ("str-raises", "class Odd(Exception):\n    def __str__(self): raise SystemExit\nraise Odd",
     "failed: Odd"),
    ("text-huge", "raise ValueError('x' * 5_000_000)", "(5,000,000 characters)"),
    ("text-forged", r"raise ValueError('a\n::error::b\x1b[31m')", r"a ::error::b\x1b[31m"),
    ("surrogate", r"raise ValueError('\udc80')", r"\udc80"),
    ("recursion", "def f(): f()\nf()", "RecursionError"),
    ("memory", "raise MemoryError", "MemoryError"),
    ("stop-iteration", hook("raise StopIteration"), "StopIteration"),
    ("interrupt-main", "import _thread, time; _thread.interrupt_main(); time.sleep(1)",
     "KeyboardInterrupt"),
]
DISTURBS = [
    ("prints", "print('hello')", "prints to standard output ('hello')"),
    ("prints-in-hook", hook("print('{}')\nreturn ()"), "prints to standard output"),
    ("prints-raw", "import os; os.write(1, b'raw')", "prints to standard output ('raw')"),
    ("prints-by-c", "import ctypes; ctypes.CDLL(None).puts(b'from c')", "('from c')"),
    ("prints-in-child", "import subprocess; subprocess.run(['echo', 'echoed'])", "('echoed')"),
    ("prints-buffered", "import sys; sys.stdout.write('no newline')", "('no newline')"),
    ("prints-dunder", "import sys; sys.__stdout__.write('dunder')", "('dunder')"),
    ("prints-for-ever", "while True: print('x' * 1000)", "prints to standard output without end"),
    ("closes-stdout", "import sys; sys.stdout.close()", "changes standard output"),
    ("closes-stderr", "import sys; sys.stderr.close()", "changes standard error"),
    ("closes-fd-1", "import os; os.close(1)", "changes standard output"),
    ("closes-all", "import os; os.closerange(0, 64)", "exit code 1"),
    ("replaces-stdout", "import io, sys; sys.stdout = io.StringIO()", "changes standard output"),
    ("stdout-none", "import sys; sys.stdout = None", "changes standard output"),
    ("redirects-fd", "import os; os.dup2(os.open('/dev/null', os.O_WRONLY), 1)",
     "changes standard output"),
    ("recursion-limit", "import sys; sys.setrecursionlimit(60)", "recursion limit"),
    ("patches-json", "import json; json.dumps = lambda *a, **k: 'x'", "patches json.dumps"),
    ("patches-json-class", "import json\njson.JSONEncoder.encode = lambda *a: '{}'",
     "patches json"),
    ("patches-hashlib", "import hashlib; hashlib.sha256 = hashlib.md5", "patches hashlib.sha256"),
    ("patches-host", "import tfq_bench.keys as k; k.digest = lambda *a: '0'",
     "patches tfq_bench.keys.digest"),
    ("patches-open", "import builtins; builtins.open = None", "changes built-in names"),
    ("patches-import", "import builtins\no = builtins.__import__\n"
     "builtins.__import__ = lambda *a, **k: o(*a, **k)", "changes built-in names"),
    ("patches-math", "import math; math.isfinite = lambda x: True", "patches math.isfinite"),
    ("patches-random", "import random; random.random = lambda: 0.5", "patches random.random"),
    ("replaces-module", "import sys; sys.modules['json'] = sys", "replaces the module json"),
    ("removes-module", "import sys; del sys.modules['hashlib']", "replaces the module hashlib"),
    ("working-folder", "import os; os.chdir('/')", "changes the working folder"),
    ("environment", "import os; os.environ['PATH'] = ''", "environment variable PATH"),
    ("threads-variable", "import os; os.environ['OMP_NUM_THREADS'] = '64'", "OMP_NUM_THREADS"),
    ("clears-environment", "import os; os.environ.clear()", "changes the environment variable"),
    ("signal-handler", "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
     "changes signal handlers"),
    ("timer", "import signal; signal.setitimer(signal.ITIMER_REAL, 1000)", "changes timers"),
    ("thread", "import threading, time\nthreading.Thread(target=time.sleep, args=(999,)).start()",
     "leaves a thread"),
    ("warnings-error", "import warnings; warnings.simplefilter('error')", "every warning"),
    ("warnings-off", "import warnings; warnings.simplefilter('ignore')", "every warning"),
    ("locale", "import locale; locale.setlocale(locale.LC_ALL, 'C')", "changes the locale"),
    ("umask", "import os; os.umask(0o777)", "changes the file mode mask"),
    ("limits", "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (32, 32))", "resource limits"),
    ("trace", "import sys; sys.settrace(lambda *a: None)", "changes tracing"),
    ("garbage", "import gc; gc.disable()", "changes garbage collection"),
    ("excepthook", "import sys; sys.excepthook = lambda *a: None", "changes sys.excepthook"),
    ("search-path", "import sys; sys.path.clear()", "removes entries of sys.path"),
    ("logging", "import logging; logging.disable(50)", "changes logging for everybody"),
    ("arguments", "import sys; sys.argv[:] = ['x', '--debug']", "changes sys.argv"),
    ("forges-answer", "import os\nfor fd in range(3, 20):\n    try:\n"
     "        os.write(fd, b'{\"end\": 0, \"answer\": {}}\\n')\n    except OSError: pass",
     "writes into the host's own channel"),
    ("floods-channel", "import os\nfor fd in range(3, 20):\n    try:\n"
     "        os.write(fd, b'[' * 10_000_000)\n    except OSError: pass", "MiB of descriptions"),
    ("reads-input", "input()", "EOFError"),
]
ENDLESS = [
    ("sleeps", "import time; time.sleep(1e6)", "had not ended after 3 s"),
    ("loops", "while True: pass", "had not ended after 3 s"),
    ("loops-in-hook", hook("while True: pass"), "had not ended after 3 s"),
    ("ignores-signals", "import signal, time\n"
     "for s in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(s, 1)\n"
     "while True: time.sleep(1)", "had not ended after 3 s"),
    ("silent-generator", hook("i = 1\nwhile i:\n    i += 1\n    if i < 0: yield i"),
     "had not ended after 3 s"),
    ("stops-itself", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", "had not ended"),
    ("catches-all", "while True:\n    try:\n        while True: pass\n"
     "    except BaseException: pass",
     "had not ended"),
]
OFFERS = [
    ("no-marker", "def tfq_metrics(): return ()", "not marked with @api.hookimpl"),
    ("wrong-argument", "from tfq_bench import api\n@api.hookimpl\ndef tfq_metrics(sell): pass",
     "sell"),
    ("wrapper", "from tfq_bench import api\n@api.hookimpl(wrapper=True)\n"
     "def tfq_metrics(): return (yield)", "is a hook wrapper"),
    ("not-iterable", hook("return 5"), "TypeError"),
    ("not-a-provider", hook("yield 'psnr'"), "must return MetricProvider objects, found 'psnr'"),
    ("wrong-kind", HOOK.replace("tfq_metrics", "tfq_models").format(body=FINE.format("x")),
     "must return ModelProvider objects"),
    ("repr-raises", "class Odd:\n    def __repr__(self): raise SystemExit\n" + hook("yield Odd()"),
     "found a Odd"),
    ("million", hook("for i in range(10**6):\n    " + FINE.format("x")), "more than 1000 prov"),
    ("endless", hook("while True:\n    " + FINE.format("x")), "more than 1000 providers"),
    ("name-newline", provider(name=r"'a\n::error::b'"), "name must match"),
    ("name-control", provider(name=r"'a\x1b[31m'"), "name must match"),
    ("name-slash", provider(name="'../x'"), "name must match"),
    ("name-empty", provider(name="''"), "name must match"),
    ("name-long", provider(name="'a' * 10**7"), "500 characters"),
    ("name-none", provider(name="None"), "TypeError"),
    ("summary-number", provider(summary="7"), "summary should be text"),
    ("factory-spaces", provider(factory="'a b:c'"), "factory must look like"),
    ("api-text", provider(api="'1'"), "api should be a whole number, found '1'"),
    ("api-flag", provider(api="True"), "api should be a whole number, found True"),
    ("api-none", provider(api="None"), "api should be a whole number, found None"),
    ("options-number", provider(options="5"), "options should be a tuple"),
    ("options-strings", provider(options="('a',)"), "an Option object"),
    ("option-kind", option(kind="'integer'"), "of kind int or float or bool or str or path or"),
    ("option-default", option(default="'one'"), "must be of type int, found 'one'"),
    ("option-nan", option(kind="'float'", default="float('nan')"), "a finite number"),
    ("option-choices", option(choices="(2, 3)"), "must be one of 2, 3, found 1"),
    ("option-name", option(name="'not a name'"), "keyword argument"),
    ("option-reserved", option(name="'name'"), "can be called 'name'"),
    ("option-list", option(default="[1]"), "a finite number"),
    ("timed-text", provider(timed="'yes'"), "timed should be True or False"),
    ("property-raises", "from tfq_bench import api\nclass Odd(api.MetricProvider):\n"
     "    summary = property(lambda self: 1 / 0)\n" + hook("o = object.__new__(Odd)\n"
     "object.__setattr__(o, 'name', 'odd')\nyield o"), "ZeroDivisionError"),
    ("property-exits", "from tfq_bench import api\nclass Odd(api.MetricProvider):\n"
     "    @property\n    def name(self): raise SystemExit\n" + hook("yield object.__new__(Odd)"),
     "SystemExit"),
    ("class-spoofed", "from tfq_bench import api\nclass Odd:\n"
     "    __class__ = api.MetricProvider\n" + hook("yield Odd()"), "AttributeError"),
    ("getattr-raises", "def __getattr__(name): raise KeyboardInterrupt\n", None),
]
# fmt: on

GROUPS = {
    "ends": ENDS,
    "raises": RAISES,
    "disturbs": DISTURBS,
    "endless": ENDLESS,
    "offers": OFFERS,
}
CASES = [(group, *case) for group, cases in GROUPS.items() for case in cases]


@pytest.fixture(scope="module")
def listed(tmp_path_factory, new_machine):
    """What `plugins list --json` says when all plugins of a group are installed."""
    found = {}

    def listing(group):
        if group not in found:
            machine = new_machine(tmp_path_factory.mktemp(group))
            for name, source, _ in GROUPS[group]:
                machine.plugin(name.replace("-", "_"), source)
            for name in ("aaa", "mmm", "zzz"):
                machine.sound(name)
            limit = "3" if group == "endless" else "60"
            done = machine.run(
                "plugins", "list", "--json", timeout=300, TFQ_BENCH_PLUGIN_TIMEOUT=limit
            )
            assert 0 == done.returncode, done.stderr
            found[group] = {plugin["plugin"]: plugin for plugin in json.loads(done.stdout)}
        return found[group]

    return listing


@pytest.mark.parametrize(("group", "name", "source", "reason"), CASES, ids=[c[1] for c in CASES])
def test_it_is_broken_and_says_why(listed, group, name, source, reason):
    """The reason names what was done, in one printable line; None is what harms nobody."""
    plugin = listed(group)[name.replace("-", "_")]
    if reason is None:
        assert ("ok", "") == (plugin["status"], plugin["reason"])
        return
    assert "broken" == plugin["status"]
    assert reason in plugin["reason"]
    assert plugin["reason"].isprintable()
    assert 2100 > len(plugin["reason"])


@pytest.mark.parametrize("group", GROUPS)
def test_the_sound_ones_beside_them_are_sound(listed, group):
    """Whatever ran before them in the same process."""
    for name in ("aaa", "mmm", "zzz", "builtin"):
        assert ("ok", "") == (listed(group)[name]["status"], listed(group)[name]["reason"])


@pytest.mark.parametrize("group", GROUPS)
def test_nothing_of_a_plugin_that_disturbs_is_offered(listed, group):
    """Its providers are not usable either: its code would have to be imported for them."""
    for plugin in listed(group).values():
        if "While it is imported" in plugin["reason"]:
            assert [] == plugin["providers"]
