"""The entry point: light, and in front of any quantizer of a suite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tfq_bench.api import Scheme
from tfq_bench.cli import main
from tfq_bench.quant import RoundToNearest
from tfq_bench.testing.plugin_host import plugin_host
from tfq_bench_ptqd.plugin import tfq_quantizers

__all__ = ["plugin_host"]

SUITE = """\
schema = 1

[suite]
name = "tiny"
threads = 1

[sampling]
sampler = "{sampler}"
steps = 3
images = 4
batch = 4
shard = 4

[calibration]
images = 4
batch = 4

[[model]]
name = "tiny"

[[quantizer]]
name = "fp"

[[quantizer]]
name = "rtn"
wbits = 3
abits = 8

[[quantizer]]
name = "ptqd+rtn"
wbits = 3
abits = 8
weights = "minmax"
correction_images = 3

[[backend]]
name = "simulate"

[[metric]]
name = "trajectory"
images = 4

[[metric]]
name = "bits"
"""


def test_entry_point_imports_no_torch():
    """Listing plugins must stay cheap."""
    code = "import sys, tfq_bench_ptqd.plugin; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.fixture
def host(plugin_host):
    """The host with this plugin and the model `tiny`."""
    plugin_host.install("ptqd", "tfq_bench_ptqd.plugin", distribution="tfq-bench-ptqd")
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    return plugin_host


def test_provider_makes_the_quantizer_with_its_options(host):
    """The factory takes every option at its default, and those of the base go to the base."""
    table = host.discover()
    pair = table.get("quantizer", "ptqd+rtn")
    options = {option.name: option.default for option in pair.options}
    made = table.create(
        pair, scheme=Scheme(wbits=4, abits=8), **{**options, "weights": "mse", "split": True}
    )
    assert isinstance(made.base, RoundToNearest)
    assert (64, "mse", True) == (made.correction_images, made.base.weights, made.base.split)
    own = {option.name for option in tfq_quantizers()[0].options}
    assert all(options[name] == getattr(made, name) for name in own)


@pytest.mark.parametrize("sampler", ["ddim", "ddim-stochastic"])
def test_a_suite_runs_it_beside_its_base(host, tmp_path, monkeypatch, sampler):
    """From the suite to the records: other images, more bytes, on a backend that knows nothing."""
    import tfq_bench

    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(SUITE.format(sampler=sampler))
    assert 0 == main(["run", "tiny.toml", "--no-report"])
    frame = tfq_bench.load_records("runs/tiny")
    asked = frame[frame["metric"].isin(["packed-bytes", "trajectory-divergence"])]
    values = asked.pivot(index="label", columns="metric", values="value")
    plain, corrected = (
        values.loc[f"tiny / {name} W3A8 / simulate"] for name in ("rtn", "ptqd+rtn")
    )
    # 3 steps: slope, variance and three channels of bias in float32.
    assert 4 * 3 * 5 == corrected["packed-bytes"] - plain["packed-bytes"]
    assert corrected["trajectory-divergence"] != plain["trajectory-divergence"]
