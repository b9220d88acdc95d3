"""What changes in a model's folder, or under it, reaches the gate: from the command line."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tfq_bench.cli import main
from tfq_bench.provenance.running_code import RunningCode

SAFE, PICKLED = (f"diffusion_pytorch_model.{kind}" for kind in ("safetensors", "bin"))

SUITE = """\
schema = 1
suite = {name = "s", threads = 1}
sampling = {steps = 2, images = 2, batch = 2, shard = 2}
calibration = {images = 2, batch = 2}
model = [{name = "diffusers", source = "model"}]
quantizer = [{name = "fp"}, {name = "rtn", wbits = [8], abits = 8, calibration_steps = 1}]
backend = [{name = "simulate"}]
metric = [{name = "paired"}]
"""


@pytest.fixture
def suite(make_folder, tmp_path) -> str:
    """A suite beside a model's folder, `model`."""
    shutil.copytree(make_folder("ddpm"), tmp_path / "model")
    (tmp_path / "suite.toml").write_text(SUITE)
    return str(tmp_path / "suite.toml")


def test_pickled_weights_beside_a_stray_file_reach_the_gate(suite, tmp_path, capsys):
    """Zeroed weights in the file that diffusers reads are another model, and no old numbers."""
    unet = tmp_path / "model" / "unet"
    weights = load_file(unet / SAFE)
    torch.save(weights, unet / PICKLED)
    (unet / SAFE).unlink()
    save_file({"lora": torch.zeros(1)}, unet / "pytorch_lora_weights.safetensors")
    run, baseline = str(tmp_path / "run"), str(tmp_path / "baseline.json")
    command = ["run", suite, "--run", run, "--no-report"]
    assert 0 == main(command)
    assert 0 == main(["baseline", "save", run, "-o", baseline])
    assert 0 == main(["gate", run, "--baseline", baseline])
    torch.save({name: torch.zeros_like(tensor) for name, tensor in weights.items()}, unet / PICKLED)
    capsys.readouterr()
    assert 0 == main(["plan", suite, "--run", run])
    assert "0 of 9 tasks are finished" in capsys.readouterr().out
    assert 3 == main(command)  # every run looks whether its images show anything
    capsys.readouterr()
    assert 1 == main(["gate", run, "--baseline", baseline])
    assert "predicts nothing but zeros" in capsys.readouterr().out


def test_plan_lists_once_what_changes_nothing(suite, tmp_path, capsys):
    """Keys of the scheduler that the sampler does not read, in one note for all cells."""
    path: Path = tmp_path / "model" / "scheduler" / "scheduler_config.json"
    assert "variance_type" in json.loads(path.read_text())
    assert 0 == main(["plan", suite])
    (line,) = [one for one in capsys.readouterr().out.splitlines() if "variance_type" in one]
    assert "change nothing under sampler 'ddim'" in line
    assert 1 == line.count("variance_type")


def test_results_depend_on_the_versions_of_the_libraries_that_compute_them():
    """Another diffusers, transformers or torch is another result."""
    code = RunningCode().facts(("tfq_bench_diffusers.model",), distribution="tfq-bench-diffusers")
    for name in ("diffusers", "transformers", "torch", "safetensors"):
        assert importlib.metadata.version(name) == code[f"version of {name}"].split()[0]
