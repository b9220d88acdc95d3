"""How a command ends: whatever code in use raises, the exit code is the command's own.

Exit code 0 stands for work that was done and told; a plugin that exits, cancels or interrupts is at
fault in its own place.
"""

import os
import subprocess
import sys

import pytest

from tfq_bench.cli import main
from tfq_bench.store.run import RunFolder

RAISED = {
    "exit 0": "SystemExit(0)",
    "exit in words": "SystemExit('text')",
    "cancelled": "asyncio.CancelledError('no')",
    "generator": "GeneratorExit()",
    "interrupt": "KeyboardInterrupt()",
    "own": "Odd('mine')",
    "no words": "Mute()",
}

PLUGIN = """
import asyncio
from tfq_bench import api
from tfq_bench.testing.tiny import TinyModel


class Odd(BaseException):
    pass


class Mute(BaseException):
    def __str__(self):
        raise SystemExit(0)


class Model(TinyModel):
    def load(self, *, device, dtype):
        {load}
        return super().load(device=device, dtype=dtype)

    def topology(self, network):
        {topology}
        return super().topology(network)

    def sampler(self, name, steps):
        {sampler}
        return super().sampler(name, steps)

    @property
    def digest(self):
        {digest}
        return "odd"

    @digest.setter
    def digest(self, value):
        pass


class Backend:
    def check(self, *, device):
        {check}

    def lower(self, loaded, state):
        {lower}


class Executor:
    def __init__(self, *, run):
        pass

    def run(self, tasks, work, *, start, done):
        {run}


class Renderer:
    def render(self, runs, target):
        print("said while it renders")
        {render}


@api.hookimpl
def tfq_models():
    yield api.ModelProvider(
        name="odd", summary="", factory=f"{{__name__}}:Model", samplers=("ddim",), gmac=0.001
    )


@api.hookimpl
def tfq_backends():
    yield api.BackendProvider(name="odd", summary="", factory=f"{{__name__}}:Backend")


@api.hookimpl
def tfq_executors():
    yield api.ExecutorProvider(name="odd", summary="", factory=f"{{__name__}}:Executor")


@api.hookimpl
def tfq_renderers():
    yield api.RendererProvider(
        name="odd", summary="", factory=f"{{__name__}}:Renderer", suffix=".odd"
    )
"""
PLACES = ("load", "topology", "sampler", "digest", "check", "lower", "run", "render")


@pytest.fixture
def odd(plugin_host):
    """A function that installs the plugin, with what it does in some places."""

    def install(**parts):
        text = PLUGIN.format(**{**dict.fromkeys(PLACES, "pass"), **parts})
        plugin_host.install("odd", text, distribution="odd-dist")

    return install


@pytest.fixture
def command(tiny_suite, tmp_path, capfd):
    """A function that runs a suite: exit code, standard output and standard error."""

    def call(*arguments, model="tiny", backend="simulate"):
        suite = tiny_suite(metrics=("bits",), images=2, steps=2)
        text = suite.read_text().replace('name = "tiny"', f'name = "{model}"', 2)
        suite.write_text(text.replace('name = "simulate"', f'name = "{backend}"'))
        code = main(["run", str(suite), "--run", str(tmp_path / "run"), *arguments])
        shown = capfd.readouterr()
        assert "Traceback" not in shown.out + shown.err
        return code, shown.out, shown.err

    return call


@pytest.mark.parametrize("raised", RAISED)
def test_an_executor_that_raises(odd, command, tmp_path, raised):
    """Nothing was done, and that is what the exit code and the records say."""
    odd(run=f"raise {RAISED[raised]}")
    code, out, _ = command("--executor", "odd", "--no-report")
    assert 3 == code
    assert "the executor ended with 9 of 9 tasks never reported" in out
    assert {"failed"} == {record.status for record in RunFolder(tmp_path / "run").records()}


@pytest.mark.parametrize("raised", RAISED)
def test_a_renderer_that_raises(odd, command, tmp_path, capfd, raised):
    """The run is done and said so; its report is not, and that is an error of the plugin."""
    odd(render=f"raise {RAISED[raised]}")
    code, out, told = command("--renderer", "odd")
    assert 2 == code
    assert "rtn W8A8" in out
    assert "Report:" not in out
    assert "renderer 'odd' of plugin 'odd' (odd-dist" in told
    assert "render raised" in told
    assert {"ok"} == {record.status for record in RunFolder(tmp_path / "run").records()}
    assert 2 == main(["report", str(tmp_path / "run"), "--renderer", "odd"])
    assert "" == capfd.readouterr().out


def test_a_renderer_that_writes_nothing(odd, command, tmp_path, capfd):
    """No path is told of a file that is not there, or that is an older one."""
    odd()
    code, out, told = command("--renderer", "odd")
    assert 2 == code
    assert "Report:" not in out
    assert "said while it renders" not in out
    assert "render ended, and did not write" in told
    (tmp_path / "run" / "report.odd").write_text("of another day")
    assert 2 == main(["report", str(tmp_path / "run"), "--renderer", "odd"])
    assert "" == capfd.readouterr().out


def test_failed_cells_are_not_hidden_by_a_renderer(odd, command):
    """Exit code 3, as without a report; what is wrong with the report is told as well."""
    odd(lower="raise SystemExit(0)", render="raise SystemExit(0)")
    code, out, told = command("--renderer", "odd", backend="odd")
    assert 3 == code
    assert "failed: tiny / rtn W8A8 / odd at lower: SystemExit: 0" in out
    assert "render raised SystemExit" in told


@pytest.mark.parametrize("raised", RAISED)
@pytest.mark.parametrize("place", ["digest", "sampler", "check"])
def test_what_is_asked_for_a_plan(odd, command, place, raised):
    """A sentence about the plugin, exit code 2."""
    odd(**{place: f"raise {RAISED[raised]}"})
    backend = "odd" if place == "check" else "simulate"
    code, out, told = command("--no-report", model="odd", backend=backend)
    assert 2 == code
    assert "" == out
    assert "(odd-dist" in told
    assert "'odd'" in told


@pytest.mark.parametrize("raised", RAISED)
@pytest.mark.parametrize("place", ["load", "topology", "lower"])
def test_what_runs_in_a_stage(odd, command, tmp_path, place, raised):
    """The cell fails at that stage, and the run ends as it does with any failed cell."""
    odd(**{place: f"raise {RAISED[raised]}"})
    model, backend = ("tiny", "odd") if place == "lower" else ("odd", "simulate")
    code, out, _ = command("--no-report", model=model, backend=backend)
    assert 3 == code
    assert "failed: " in out
    statuses = {record.status for record in RunFolder(tmp_path / "run").records()}
    assert ({"ok", "failed"} if place == "lower" else {"failed"}) == statuses


@pytest.mark.parametrize("raised", RAISED)
def test_what_a_command_raises(monkeypatch, capsys, raised):
    """Code of a plugin that nothing encloses: exit code 70 and a sentence, never 0."""
    import asyncio

    names = {"asyncio": asyncio, "Odd": type("Odd", (BaseException,), {}), "Mute": BaseException}
    error = eval(RAISED[raised], names)

    def execute(args):
        raise error

    monkeypatch.setattr("tfq_bench.cli.status.execute", execute)
    expected = 130 if isinstance(error, KeyboardInterrupt) else 70
    assert expected == main(["status", "run"])
    assert capsys.readouterr().err.startswith("tfq-bench: ")


@pytest.mark.parametrize("verdict", [0, 1])
@pytest.mark.parametrize("place", ["closed", "full"])
def test_where_the_verdict_goes(tmp_path, place, verdict):
    """A failed verdict stays one when nobody can read it; a passed one is not told as passed."""
    script = (
        "import sys; from tfq_bench.cli import main, status;"
        f"status.execute = lambda args: print('verdict') or {verdict};"
        "sys.exit(main(['status', 'run']))"
    )
    redirect = ">&-" if place == "closed" else ">/dev/full"
    found = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {redirect}', sys.executable, script],
        env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    full = "tfq-bench: cannot write to standard output: no space is left.\n"
    assert ("" if place == "closed" else full) == found.stderr
    assert (verdict or (2 if place == "full" else 0)) == found.returncode
