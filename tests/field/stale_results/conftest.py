"""A research project on a disk, and the keys that a plan gives its quantized cell."""

import importlib
import os
import sys

import pytest

from tfq_bench.plan.planner import make_plan
from tfq_bench.plan.suite import parse_suite

from .research import METHOD, METRIC, SUITE, WRAPPER


@pytest.fixture
def project(plugin_host, tmp_path, monkeypatch):
    """A project of which the entry point is one module and the code another package."""
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    sources = tmp_path / "sources"
    package = sources / "research"
    package.mkdir(parents=True)
    for name, text in {
        "__init__": "",
        "method": METHOD,
        "metric": METRIC,
        "ranges": "STEPS = 1\n",
        "annotations": "Nothing = None\n",
        "unused": "",
    }.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(sources))
    monkeypatch.setenv("PYTHONPATH", f"{sources}{os.pathsep}{os.environ['PYTHONPATH']}")
    plugin_host.install("my_wrapper", WRAPPER, distribution="my-dist")
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] in ("research", "beside")]:
        del sys.modules[name]


@pytest.fixture
def keys(plugin_host, tmp_path):
    """A function that plans the suite and returns the quantized cell's keys by stage."""

    def plan(suite=SUITE, folder=tmp_path):
        importlib.invalidate_caches()
        found = make_plan(parse_suite(suite, "field.toml", folder), plugin_host.discover())
        cell = found.cells[-1].keys
        one, other = cell.evaluate[:2]
        return {"quantize": cell.quantize, "sample": cell.sample, "bits": one, "mean": other}

    return plan
