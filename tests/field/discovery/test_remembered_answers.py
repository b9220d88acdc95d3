"""An answer of a plugin is remembered until something changes that it depends on."""

import os
import subprocess
import sys

import pytest

from .marked_plugin import MARK, names


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


@pytest.mark.parametrize("place", ["/dev/null/cache", "relative", "~nobody/x"])
def test_a_place_that_cannot_be_written_is_none(marked, place):
    """Discovery works the same, each time anew."""
    assert "marked" in names(marked, TFQ_BENCH_CACHE=place)
    assert "marked" in names(marked, TFQ_BENCH_CACHE=place)


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


def test_an_edit_of_what_ended_the_process_is_noticed(machine):
    """Whoever repairs a plugin need not wait."""
    machine.plugin("repaired", "import os; os._exit(0)")
    assert "repaired" not in names(machine)
    (machine.folder / "repaired_module.py").write_text(
        MARK.format(path=os.devnull, name="repaired")
    )
    assert "repaired" in names(machine)
