"""Discovery as commands use it: what is remembered, who may interrupt, who pays."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfq_bench.host.discovery.kept import Kept

MARK = """
import pathlib
with pathlib.Path({path!r}).open("a") as file:
    file.write("imported\\n")
from tfq_bench import api

@api.hookimpl
def tfq_metrics():
    yield api.MetricProvider(name={name!r}, summary="For a test.", factory="fractions:Fraction")
"""


@pytest.fixture
def marked(machine):
    """A machine with a plugin that notes each import; `imports()` says how many there were."""
    path = machine.cwd / "imports"
    machine.plugin("marked", MARK.format(path=str(path), name="marked"))
    machine.imports = lambda: path.read_text().count("\n") if path.exists() else 0
    return machine


def names(machine, **environment):
    """Names of all providers that are listed as usable."""
    done = machine.run("plugins", "list", "--json", **environment)
    assert 0 == done.returncode, done.stderr
    return {p["name"] for plugin in json.loads(done.stdout) for p in plugin["providers"]}


def test_an_answer_is_remembered(marked):
    """The second command imports nothing of the plugin."""
    assert "marked" in names(marked)
    assert 1 == marked.imports()
    assert "marked" in names(marked)
    assert 1 == marked.imports()


def test_checking_tries_again(marked):
    """`plugins check` believes no memory: once for what it offers, once for its factory."""
    names(marked)
    marked.run("plugins", "check", "marked")
    assert 3 == marked.imports()


@pytest.mark.parametrize(
    "change", ["module", "helper", "version", "more", "variable", "removed", "metadata"]
)
def test_what_an_answer_depends_on_makes_it_another(marked, change):
    """Code, what it imports, what is installed, variables: each is noticed."""
    module = marked.folder / "marked_module.py"
    (marked.folder / "helper_module.py").write_text("x = 1\n")
    module.write_text(module.read_text() + "import helper_module\n")
    assert "marked" in names(marked)
    environment = {}
    if change == "module":
        module.write_text(module.read_text().replace("name='marked'", "name='renamed'"))
    elif change == "helper":
        (marked.folder / "helper_module.py").write_text("raise RuntimeError('edited')\n")
    elif change == "version":
        (marked.folder / "marked-1.0.dist-info").rename(marked.folder / "marked-2.0.dist-info")
    elif change == "more":
        marked.sound("another")
    elif change == "variable":
        environment["SOME_SWITCH"] = "1"
    elif change == "removed":
        (marked.folder / "helper_module.py").unlink()
    else:
        os.utime(marked.folder / "marked-1.0.dist-info", ns=(1, 1))
    found = names(marked, **environment)
    assert 2 == marked.imports()
    assert ("marked" in found) == (change not in ("module", "helper", "removed"))
    assert ("renamed" in found) == (change == "module")
    assert ("another" in found) == (change == "more")


ENTRY = {"name": "marked", "distribution": "marked", "version": "1.0", "module": "marked_module"}
ANSWER = {"offers": [], "faults": [], "files": {}, "disturbances": []}


@pytest.fixture
def remembered(tmp_path, monkeypatch):
    """The file of a memory with one answer, which `Kept` finds."""
    monkeypatch.setenv("TFQ_BENCH_CACHE", str(tmp_path))
    Kept("1.0").add([(ENTRY, ANSWER)])
    assert ANSWER == {k: v for k, v in Kept("1.0").get(ENTRY).items() if k != "until"}
    (path,) = (tmp_path / "plugins").iterdir()
    return path


def edited(edit):
    """A damage by a function of the JSON that is there."""
    return lambda path: path.write_text(json.dumps(edit(json.loads(path.read_text()))))


def written(change):
    """A damage by a function of the bytes that are there."""
    return lambda path: path.write_bytes(change(path.read_bytes()))


def replaced(make):
    """A damage that puts something else where the file was."""
    return lambda path: (path.unlink(), make(path))


def lengthened(path):
    """A hole of 16 GiB behind what was there."""
    with path.open("r+b") as file:
        file.truncate(1 << 34)


def no_folder(path):
    """A file where the folder should be."""
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("")


DAMAGES = {
    "truncated": written(lambda content: content[:-20]),
    "empty": written(lambda content: b""),
    "binary": written(lambda content: bytes(range(256))),
    "deep": written(lambda content: b"[" * 100_000),
    "changed": written(lambda content: content.replace(b"offers", b"OFFERS", 1)),
    "one-digit": written(lambda content: content.replace(b"1.0", b"1.1", 1)),
    "huge": lengthened,
    "schema": edited(lambda whole: {**whole, "schema": 99}),
    "no-answers": edited(lambda whole: {"schema": whole["schema"], "sha256": whole["sha256"]}),
    "list": edited(lambda whole: []),
    "null": edited(lambda whole: None),
    "folder": replaced(lambda path: (path / "more").mkdir(parents=True)),
    "pipe": replaced(os.mkfifo),
    "device": replaced(lambda path: path.symlink_to("/dev/zero")),
    "loop": replaced(lambda path: path.symlink_to(path)),
    "no-folder": no_folder,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_memory_is_as_good_as_none(remembered, damage, caplog):
    """Nothing is found in it, nothing is said, and where it can be it is written anew."""
    damage(remembered)
    assert Kept("1.0").get(ENTRY) is None
    Kept("1.0").add([(ENTRY, ANSWER)])
    assert [] == [r for r in caplog.records if r.levelno > logging.DEBUG]


def test_the_memory_of_somebody_else_is_none(remembered, monkeypatch):
    """Whose file it is decides whether it is believed."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert Kept("1.0").get(ENTRY) is None


def test_another_host_has_another_memory(remembered):
    """Answers are those of one version of the host and its code."""
    assert Kept("1.1").get(ENTRY) is None


@pytest.mark.parametrize("place", ["/dev/null/cache", "relative", "~nobody/x"])
def test_a_place_that_cannot_be_written_is_none(marked, place):
    """Discovery works the same, each time anew."""
    assert "marked" in names(marked, TFQ_BENCH_CACHE=place)
    assert "marked" in names(marked, TFQ_BENCH_CACHE=place)


def test_an_answer_that_is_valid_json_and_wrong_is_none(marked):
    """Also with a checksum that fits: every field is held against its type."""
    import hashlib

    names(marked)

    def forge(whole):
        for answer in whole["answers"].values():
            for offer, _ in answer["offers"]:
                offer["api"] = "1"
        text = json.dumps(whole["answers"], sort_keys=True)
        return {**whole, "sha256": hashlib.sha256(text.encode()).hexdigest()}

    (path,) = (marked.cwd / "cache" / "plugins").iterdir()
    edited(forge)(path)
    assert "marked" in names(marked)
    assert 2 == marked.imports()


def test_old_states_are_forgotten(marked):
    """The folder does not grow with every variable that ever was."""
    folder = marked.cwd / "cache" / "plugins"
    folder.mkdir(parents=True)
    for number in range(40):
        (folder / f"{number:032}.json").write_text("{}")
        os.utime(folder / f"{number:032}.json", (number, number))
    names(marked)
    assert 20 == len(list(folder.iterdir()))


def test_many_commands_at_once_agree(marked):
    """Each writes its answers whole."""
    command = [sys.executable, "-m", "tfq_bench", "plugins", "list", "--json"]
    running = [
        subprocess.Popen(
            command, env=marked.environment, cwd=marked.cwd, stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    outputs = {process.communicate(timeout=400)[0] for process in running}
    assert [0] * 6 == [process.returncode for process in running]
    assert 1 == len(outputs)
    before = marked.imports()
    assert "marked" in names(marked)
    assert before == marked.imports()
    assert 1 == len(list((marked.cwd / "cache" / "plugins").iterdir()))


def test_what_did_not_end_is_not_tried_by_every_command(machine):
    """A worker or the next command does not wait again; `plugins check` does."""
    path = machine.cwd / "imports"
    source = MARK.format(path=str(path), name="slow").replace(
        "from tfq_bench import api", "import time; time.sleep(1e6)\nfrom tfq_bench import api"
    )
    machine.plugin("slow", source)
    for _ in range(2):
        done = machine.run("plugins", "list", TFQ_BENCH_PLUGIN_TIMEOUT="1")
        assert "slow (slow 1.0) is broken" in done.stdout
        assert 1 == path.read_text().count("\n")
    done = machine.run("plugins", "check", "slow", TFQ_BENCH_PLUGIN_TIMEOUT="1")
    assert 1 == done.returncode
    assert 2 == path.read_text().count("\n")


def test_a_time_limit_that_is_none_is_refused(marked):
    """In a sentence with the variable's name."""
    for wrong in ("soon", "nan"):
        done = marked.run("plugins", "list", TFQ_BENCH_PLUGIN_TIMEOUT=wrong)
        assert 2 == done.returncode
        assert "TFQ_BENCH_PLUGIN_TIMEOUT should be a positive number" in done.stderr
        assert 0 == marked.imports()


def test_listing_what_is_remembered_imports_nothing_heavy(machine):
    """Also when the plugin imports torch itself: only the child pays, once."""
    machine.plugin("heavy", "import torch\n" + MARK.format(path=os.devnull, name="heavy"))
    assert "heavy" in names(machine)
    script = (
        "import sys; from tfq_bench.host.plugins import discover; found = discover(); "
        "print('heavy' in found.names('metric'), [m for m in ('torch', 'numpy', 'heavy_module', "
        "'subprocess') if m in sys.modules])"
    )
    for _ in range(2):  # another search path than the command's: tried once more
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=machine.environment,
            cwd=machine.cwd,
            capture_output=True,
            text=True,
        )
    assert "True []" == done.stdout.strip()


@pytest.mark.parametrize("code", ["import time; time.sleep(1e6)", "while True: pass"])
def test_the_user_s_interruption_stops_the_command(machine, code):
    """130, a sentence, and no process is left."""
    path = machine.cwd / "pid"
    machine.plugin(
        "slow",
        f"import os, pathlib\npathlib.Path({str(path)!r}).write_text(str(os.getpid()))\n{code}",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "tfq_bench", "plugins", "list"],
        env={**machine.environment, "TFQ_BENCH_PLUGIN_TIMEOUT": "600"},
        cwd=machine.cwd,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=machine.interruptible,
    )
    while not (path.exists() and path.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert 130 == process.returncode
    assert "interrupted" in told
    with pytest.raises(ProcessLookupError):
        os.kill(int(path.read_text()), 0)


def test_a_killed_command_leaves_no_child(machine):
    """Not even one that ignores every signal."""
    path = machine.cwd / "pid"
    machine.plugin(
        "slow",
        f"import os, pathlib\npathlib.Path({str(path)!r}).write_text("
        "str(os.getpid()))\nimport time; time.sleep(1e6)",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "tfq_bench", "plugins", "list"],
        env={**machine.environment, "TFQ_BENCH_PLUGIN_TIMEOUT": "600"},
        cwd=machine.cwd,
    )
    while not (path.exists() and path.read_text()):
        time.sleep(0.05)
    process.kill()
    process.wait()
    child = int(path.read_text())
    for _ in range(200):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return  # dead, and not yet collected by whoever adopted it
        time.sleep(0.05)
    raise AssertionError("the child is still there")


def test_hostile_plugins_cost_a_run_nothing(machine, suite_text):
    """Planned, run with workers, and judged beside plugins that exit, hang, crash and print."""
    machine.plugin("ends", "import os; os._exit(0)")
    machine.plugin("hangs", "while True: pass")
    machine.plugin("crashes", "import ctypes; ctypes.string_at(0)")
    machine.plugin("prints", "print('{')")
    (machine.cwd / "suite.toml").write_text(suite_text)
    limit = {"TFQ_BENCH_PLUGIN_TIMEOUT": "3"}
    done = machine.run("plan", "suite.toml", "--json", **limit)
    assert 2 == len(json.loads(done.stdout)["cells"])
    for command in (
        "run suite.toml --run here --no-report",
        "baseline save here -o base.json",
        "gate here --baseline base.json",
    ):
        done = machine.run(*command.split(), **limit)
        assert 0 == done.returncode, f"{command}: {done.stderr}"
        assert "" != done.stdout


def test_workers_do_not_try_again(marked, suite_text):
    """Neither a plugin that is sound, nor one that fails, nor one that ends the process."""
    path = marked.cwd / "others"
    mark = f"open({str(path)!r}, 'a').write('tried\\n')\n"
    marked.plugin("ends", mark + "import os; os._exit(0)")
    marked.plugin("fails", mark + "raise RuntimeError('no')")
    (marked.cwd / "suite.toml").write_text(
        suite_text.replace('{name = "rtn", wbits = [8], abits = 8}', "")
    )
    done = marked.run(
        "run", "suite.toml", "--run", "here", "--no-report", "--executor", "process", timeout=300
    )
    assert 0 == done.returncode, done.stderr
    assert 1 == marked.imports()
    assert 2 == path.read_text().count("tried")


def test_an_edit_of_what_ended_the_process_is_noticed(machine):
    """Whoever repairs a plugin need not wait."""
    machine.plugin("repaired", "import os; os._exit(0)")
    assert "repaired" not in names(machine)
    (machine.folder / "repaired_module.py").write_text(
        MARK.format(path=os.devnull, name="repaired")
    )
    assert "repaired" in names(machine)
