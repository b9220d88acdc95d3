"""Every family through the whole pipeline: each method, real kernels, metrics, report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tfq_bench import api
from tfq_bench.cli import main
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant import network_parity, simulate, temporal_errors, temporal_features
from tfq_bench.seeds import generator
from tfq_bench_cpu.backend import CpuBackend
from tfq_bench_diffusers.model import DiffusersModel
from tfq_bench_tfmq.find_block import find_temporal_block
from tfq_bench_tfmq.quantizer import Tfmq

GUIDED = ("sd", "sdxl", "dit", "pixart")
SUITE = """
schema = 1

[suite]
name = "families"

[sampling]
sampler = "{sampler}"
steps = 3
images = 2
batch = 2
shard = 2

[calibration]
images = 2
batch = 2

[[model]]
name = "diffusers"
source = "{source}"
guidance = {guidance}

[[quantizer]]
name = "fp"

[[quantizer]]
name = "rtn"
wbits = [8]
abits = 8

[[quantizer]]
name = "ptq4dm"
wbits = [8]
abits = 8
preset = "quick"
samples = 6

[[quantizer]]
name = "qdiffusion"
wbits = [4]
abits = 8
preset = "quick"
iterations = 3
activation_iterations = 2

[[quantizer]]
name = "tfmq"
wbits = [4]
abits = 8
method = "tpami25"
preset = "quick"
iterations = 3
tiar_iterations = 5

[[backend]]
name = "cpu"

[[metric]]
name = "paired"

[[metric]]
name = "bits"

[[metric]]
name = "temporal"

[[metric]]
name = "trajectory"

[[metric]]
name = "kernels"
"""


@pytest.mark.parametrize(
    ("family", "sampler"),
    [
        ("ddpm", "ddim-quadratic"),
        ("ldm", "ddim"),
        ("sd", "pndm"),
        ("sdxl", "euler"),
        ("dit", "ddim"),
        ("pixart", "dpm-solver++"),
    ],
)
def test_family_runs_from_folder_to_report(make_folder, tmp_path, family, sampler):
    """All five methods end, run low-bit kernels alone, and are in the report."""
    suite = tmp_path / "suite.toml"
    guidance = 3.0 if family in GUIDED else 1.0
    suite.write_text(SUITE.format(source=make_folder(family), sampler=sampler, guidance=guidance))
    run = tmp_path / "run"
    assert 0 == main(["run", str(suite), "--run", str(run)])
    records = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    assert {"ok"} == {record["status"] for record in records}
    assert {"fp", "rtn", "ptq4dm", "qdiffusion", "tfmq"} == {
        record["axes"]["quantizer"] for record in records
    }
    low_bit = {
        record["axes"]["quantizer"]: record["metric"]["value"]
        for record in records
        if record["metric"] is not None and record["metric"]["name"] == "mac-share-low-bit"
    }
    assert dict.fromkeys(("rtn", "ptq4dm", "qdiffusion", "tfmq"), 1.0) == low_bit
    assert 0 == main(["report", str(run), "--output", str(tmp_path / "report.html")])
    assert "tfmq" in (tmp_path / "report.html").read_text()


def load(folder: Path, steps: int = 4) -> api.LoadedModel:
    """A tiny model with a DDIM sampler."""
    model = DiffusersModel(source=str(folder))
    network = model.load(device="cpu", dtype=torch.float32)
    return api.LoadedModel(
        model=model,
        network=network,
        topology=model.topology(network),
        sampler=model.sampler("ddim", steps),
        device="cpu",
    )


@pytest.mark.parametrize("family", ["ddpm", "ldm", "sd", "sdxl", "dit", "pixart"])
def test_temporal_block_gives_the_networks_features(make_folder, family):
    """On the table of timesteps as in the network, one chain or many."""
    loaded = load(make_folder(family))
    block = find_temporal_block(loaded)
    expected = temporal_features(loaded, loaded.network, names=loaded.topology.time_features)
    found = block.features()
    assert list(expected) == list(found)
    for name, rows in expected.items():
        assert float((rows - found[name]).norm() / rows.norm()) < 1e-5, name


def quantized(loaded: api.LoadedModel, **options) -> api.Lowered:
    """The model under tfmq at W4A8, on the int8 kernels, after comparing them with simulation."""
    scheme = api.Scheme(wbits=4, abits=8, policy=options.pop("policy", "uniform"))
    method = Tfmq(
        scheme=scheme, preset="quick", iterations=2, tiar_iterations=20, samples=2, **options
    )
    data = capture(
        loaded,
        method.calibration_needs(loaded, images=2),
        seed=1,
        batch=2,
        progress=lambda *_: None,
    )
    state = method.quantize(loaded, data, generator=generator(0, "test"), progress=lambda *_: None)
    lowered = CpuBackend().lower(loaded, state)
    assert 0.0 == network_parity(loaded, simulate(loaded, state), lowered).max_abs
    return lowered


@pytest.mark.parametrize("family", ["sdxl", "dit", "pixart"])
def test_cached_features_are_full_precision_where_a_condition_follows(make_folder, family):
    """At 16 bits only float16 rounds what the time MLP gives; text or class is added behind it."""
    loaded = load(make_folder(family))
    names = loaded.topology.time_features
    assert names != loaded.topology.time_projections
    exact = temporal_features(loaded, loaded.network, names=names)
    errors = {}
    for bits in (16, 8):
        lowered = quantized(loaded, method="tpami25", maintenance="cache", cache_bits=bits)
        found = temporal_features(loaded, lowered, names=names)
        errors[bits] = float(temporal_errors(exact, found).relative.max())
    assert errors[16] < 5e-4 < errors[8] < 0.02


@pytest.mark.parametrize("family", ["sdxl", "dit"])
def test_projections_behind_a_condition_have_a_range_for_every_step(make_folder, family):
    """Finite set calibration over steps; other inputs keep one range."""
    loaded = load(make_folder(family))
    method = Tfmq(
        scheme=api.Scheme(wbits=8, abits=8), preset="quick", iterations=0, tiar_iterations=0
    )
    needs = method.calibration_needs(loaded, images=2)
    data = capture(loaded, needs, seed=1, batch=2, progress=lambda *_: None)
    state = method.quantize(loaded, data, generator=generator(0, "test"), progress=lambda *_: None)
    lengths = {name: len(layer.parts[0].activation.scale) for name, layer in state.layers.items()}
    per_step = {name for name, length in lengths.items() if length == 4}
    temporal = {*loaded.topology.time_mlp, *loaded.topology.time_projections}
    assert per_step == temporal & set(lengths)


@pytest.mark.parametrize("family", ["sd", "sdxl", "dit"])
def test_temporal_layers_may_stay_in_16_bits(make_folder, family):
    """The third way with a condition, and a reference point for all models."""
    loaded = load(make_folder(family))
    lowered = quantized(loaded, policy="uniform-temporal16")
    exact = temporal_features(loaded, loaded.network)
    found = temporal_features(loaded, lowered)
    assert float(temporal_errors(exact, found).relative.max()) < 0.35
    temporal = {*loaded.topology.time_mlp, *loaded.topology.time_projections}
    assert not temporal & {use.layer for use in lowered.kernels}
