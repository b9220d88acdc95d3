"""Fixtures of the host's own tests."""

import hashlib
import http.server
import os
import threading
import types
from dataclasses import replace
from pathlib import Path

# Before torch is imported: tiny networks gain nothing from threads, and busy machines lose a lot.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

# Imported, not named in `pytest_plugins`: that is refused below the root folder of a checkout.
from tfq_bench.testing.plugin_host import plugin_host

__all__ = ["asset_plugin", "host_gpus", "plugin_host", "project", "small_plan", "tiny_suite", "web"]


@pytest.fixture(autouse=True)
def asset_folder(tmp_path, monkeypatch):
    """An empty folder of fetched files, whatever this machine has."""
    folder = tmp_path / "fetched"
    monkeypatch.setenv("TFQ_BENCH_ASSETS", str(folder))
    return folder


class _Pages(http.server.BaseHTTPRequestHandler):
    """Serves `server.pages`; `short` sends less than it promises."""

    def do_GET(self):
        self.server.asked.append(self.path)
        body = self.server.pages.get(self.path.removeprefix("/"))
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write((body or b"")[: 3 if "short" in self.path else None])

    def log_message(self, *arguments):
        """Says nothing."""


@pytest.fixture
def web():
    """A server on this machine: `pages` by name, `asked` paths, `url`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
    server.pages, server.asked = {}, []
    server.url = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


ASSETS = """
from tfq_bench import api


def assets(options):
    if options["kind"] == "broken":
        raise ZeroDivisionError
    if options["kind"] == "none":
        return ()
    return (
        api.Asset(
            name="weights.bin",
            what="the sharp weights",
            kind="file",
            source="{url}weights.bin",
            path=api.fetched_file("weights.bin"),
            size=11,
            sha256="{sha256}",
            licence="MIT",
            advice="Ask the author.",
        ),
    )


class Sharp:
    def __init__(self, *, kind):
        pass

    def evaluate(self, inputs):
        return ()


@api.hookimpl
def tfq_metrics():
    yield api.MetricProvider(
        name="sharp",
        summary="",
        factory=f"{{__name__}}:Sharp",
        assets=f"{{__name__}}:assets",
        options=(
            api.Option(
                name="kind", kind="str", default="{default}", choices=({choices}), help="Kind."
            ),
        ),
    )
"""


@pytest.fixture
def asset_plugin(plugin_host, web):
    """Installs the metric `sharp`, which needs 11 bytes from `web`; returns their content."""
    content = b"eleven byte"
    digest = hashlib.sha256(content).hexdigest()
    web.pages["weights.bin"] = content

    def install(*, sha256=digest, default="file", more=()):
        choices = ", ".join(repr(choice) for choice in ("file", "none", *more))
        source = ASSETS.format(url=web.url, sha256=sha256, default=default, choices=choices)
        plugin_host.install("sharp", source, distribution="sharp-dist")
        return content

    return install


SUITE = """\
schema = 1
seeds = [0]

[suite]
name = "tiny"
threads = 1

[sampling]
sampler = "{sampler}"
steps = {steps}
images = {images}
batch = {batch}
shard = {shard}

[calibration]
images = 2
batch = 2

[timing]
batch = 1
warmup = 0
rounds = 3

[[model]]
name = "tiny"

[[quantizer]]
name = "fp"

[[quantizer]]
name = "rtn"
wbits = {wbits}
abits = 8

[[backend]]
name = "simulate"
"""


@pytest.fixture
def tiny_suite(plugin_host, tmp_path):
    """A function that writes a suite of the model `tiny` and returns its path."""
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")

    def write(*, metrics=("paired", "timing", "bits"), wbits=(8,), more="", **sampling):
        values = {"sampler": "ddim", "steps": 3, "images": 4, "batch": 2, "shard": 2, **sampling}
        tables = "".join(f'\n[[metric]]\nname = "{name}"\n' for name in metrics)
        path = tmp_path / "tiny.toml"
        path.write_text(f"{SUITE.format(wbits=list(wbits), **values)}{tables}\n{more}")
        return path

    return write


@pytest.fixture
def project(tiny_suite, tmp_path):
    """A function that plans a tiny suite: its plan, plugin table, run folder and context."""
    from tfq_bench.host.plugins import discover
    from tfq_bench.pipeline.cell_context import CellContext
    from tfq_bench.plan.planner import make_plan
    from tfq_bench.plan.suite import load_suite
    from tfq_bench.store.run import RunFolder

    def make(name="run", **options):
        spec, table = load_suite(str(tiny_suite(**options))), discover()
        plan = make_plan(spec, table)
        folder = RunFolder.prepare(tmp_path / name)
        folder.write(spec.text, plan.to_json())
        context = CellContext(plan, table, folder.artefacts)
        return types.SimpleNamespace(plan=plan, table=table, folder=folder, context=context)

    return make


SMALL = """\
schema = 1
suite.name = "small"
sampling = {sampler = "ddim", steps = 3, images = 4, batch = 2, shard = 2}
model = [{name = "tiny"}]
quantizer = [{name = "fp"}, {name = "crude", wbits = [8, 4]}]
backend = [{name = "simulate"}, {name = "box"}]
metric = [{name = "bits"}, {name = "score"}]
"""


@pytest.fixture
def small_plan(plugin_host, tmp_path):
    """A function that plans a small suite with fields of its `SuiteSpec` changed.

    `tiny` and what `small_plugin.py` offers are installed; tables of numbers are changed in part.
    """
    from tfq_bench.plan.planner import make_plan
    from tfq_bench.plan.suite import parse_suite

    source = Path(__file__).with_name("small_plugin.py").read_text("utf-8")
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    plugin_host.install("small", source, distribution="odd-dist")

    def make(folder=tmp_path, **changes):
        spec = parse_suite(SMALL, "small.toml", folder)
        for name in {"sampling", "calibration", "timing"} & set(changes):
            changes[name] = {**getattr(spec, name), **changes[name]}
        return make_plan(replace(spec, **changes), plugin_host.discover())

    return make


@pytest.fixture
def host_gpus(monkeypatch):
    """A function that gives this host GPUs of these names, which `CUDA_VISIBLE_DEVICES` chooses of.

    Only the answer of the child process that asks torch for them is made up. It is asked with a
    value of that variable, which are kept in `asked`: numbers, or the ids GPU-0, GPU-1 and so on.
    Of MIG instances CUDA shows a process the first only.
    """
    from tfq_bench.executors import gpus

    def of(*names):
        facts = [
            {
                "name": name,
                "memory_bytes": 80 * 2**30 + number,
                "capability": "9.0",
                "multiprocessors": 132,
            }
            for number, name in enumerate(names)
        ]
        known = {f"{how}{n}": one for n, one in enumerate(facts) for how in ("", "GPU-", "MIG-")}

        def asked(shown):
            of.asked.append(shown)
            if shown is None:
                return facts
            entries = [entry.strip() for entry in shown.split(",")]
            there = [entry in known for entry in [*entries, ""]].index(False)
            return [known[entry] for entry in entries[:there][: 1 if "MIG" in shown else None]]

        monkeypatch.setattr(gpus, "_asked", asked)

    of.asked = []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return of


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Hostile text that was logged or printed does not stop pytest-xdist, which sends UTF-8."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report
