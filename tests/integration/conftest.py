"""Whole runs of a tiny suite, in this process or in one that may be killed."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tfq_bench.cli import main
from tfq_bench.store.run import RunFolder

METRICS = ("paired", "timing", "bits", "temporal", "trajectory", "cost")


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """The temporary folder of the test and its processes, which no other run tidies."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def sabotage(plugin_host, tmp_path, monkeypatch):
    """A function that puts source text into every Python process that is started from now on.

    It runs as `sitecustomize`, before anything of tfq-bench does, and finds in `role` where: `run`
    is the process of the command, `worker` one of `--executor process`, `other` any else, such as
    the one that tries plugins. `plugin_host` is asked for because its PYTHONPATH must stand behind.
    """
    folder = tmp_path / "sabotage"
    folder.mkdir()

    def put(source):
        (folder / "sitecustomize.py").write_text(ROLE + source, "utf-8")
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)

    return put


ROLE = """
import sys

_what = sys.orig_argv[1:4]
role = "other"
if _what == ["-m", "tfq_bench", "run"]:
    role = "run"
if _what == ["-m", "tfq_bench", "cell"] and "--stage" in sys.orig_argv:
    role = "worker"
"""


@pytest.fixture
def run(tiny_suite, tmp_path):
    """A function that runs the suite in this process and returns its run folder."""

    def start(name, *arguments, **options):
        suite = tiny_suite(metrics=METRICS, **options)
        folder = tmp_path / name
        assert 0 == main(["run", str(suite), "--run", str(folder), "--no-report", *arguments])
        return RunFolder.open(folder)

    return start


@pytest.fixture
def run_command(tiny_suite, tmp_path):
    """A function: the arguments of the command that runs the suite."""

    def command(name):
        return [
            "run",
            str(tiny_suite(metrics=METRICS)),
            "--run",
            str(tmp_path / name),
            "--no-report",
        ]

    return command


@pytest.fixture
def apart(run_command):
    """A function that runs the suite in a fresh process and returns how that ended."""

    def start(name, *arguments, env=None):
        return subprocess.run(
            [sys.executable, "-m", "tfq_bench", *run_command(name), *arguments],
            env=_environment(env or {}),
            capture_output=True,
            text=True,
            timeout=400,
        )

    return start


def _environment(more):
    """That of a command, which finds this checkout behind what the test puts before it."""
    search = os.pathsep.join([os.environ["PYTHONPATH"], str(Path(__file__).parents[2])])
    return {**os.environ, "PYTHONPATH": search, **more}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A process that has torch and forks for every command; see `forked_commands`."""
    script = Path(__file__).with_name("forked_commands.py")
    search = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(script.parents[2])])
    with subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": search},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def fork(server):
    """A function that runs a command in a fork: its exit code, what it told, its process group."""

    def start(*arguments, **env):
        order = {"arguments": [str(one) for one in arguments], "environment": _environment(env)}
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        ended = json.loads(server.stdout.readline())
        return ended["code"], ended["told"], ended["group"]

    return start


@pytest.fixture
def facts():
    """A function that reduces a run to what must not depend on how it was carried out.

    The environment is left out, because a process apart sees what is really installed; of times
    and memory only the definitions are kept. What the shell says of threads is part of the keys of
    times alone, and so of the run's name.
    """

    def reduce(folder):
        found = []
        for record in folder.records():
            metric = record.metric
            if metric is not None and metric.definition.volatile:
                metric = dataclasses.replace(metric, value=0.0, interval=None, n=0)
                record = dataclasses.replace(record, source="")
            record = dataclasses.replace(record, run="", environment="", metric=metric)
            found.append(repr(record))
        assert found
        return found

    return reduce


LIKENESS = """
from tfq_bench import api

DEFINITION = api.MetricDefinition(
    name="likeness", unit="", direction="lower", margin=0.1, summary="Of every pixel, weighted."
)


class Likeness:
    def evaluate(self, inputs):
        values = [v * n for n, v in enumerate(inputs.images.ravel().tolist(), start=1)]
        return (api.MetricValue(definition=DEFINITION, value=float(sum(values)), n=2),)


@api.hookimpl
def tfq_metrics():
    yield api.MetricProvider(name="likeness", summary="", factory=f"{__name__}:Likeness")
"""
"""Tells any two sets of images apart, and imports nothing: a start takes half of what it would."""


@pytest.fixture
def small_suite(tiny_suite, plugin_host):
    """A suite of two cells, 9 tasks and little else to wait for."""
    plugin_host.install("likeness", LIKENESS, distribution="likeness-dist")
    return tiny_suite(metrics=("likeness", "bits"), images=2, steps=2)


@pytest.fixture
def begin(small_suite, fork):
    """A function that runs the suite in a process group of its own; its exit code and text."""

    def start(folder, *arguments, **env):
        return fork("run", small_suite, "--run", folder, "--no-report", *arguments, **env)

    return start


@pytest.fixture
def numbers():
    """A function: what a run found, by label and metric."""

    def read(folder):
        return {
            (r.label, r.metric.definition.name): r.metric.value
            for r in RunFolder.open(folder).records()
            if r.status == "ok" and r.metric is not None
        }

    return read


@pytest.fixture
def sealed():
    """A function: when each finished artefact of a run folder was sealed."""

    def read(folder):
        return {
            path.relative_to(folder): path.stat().st_mtime_ns
            for path in folder.glob("artefacts/*/*/manifest.json")
            if not path.parent.name.startswith(".")
        }

    return read
