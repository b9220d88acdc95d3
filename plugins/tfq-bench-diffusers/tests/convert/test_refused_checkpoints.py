"""Checkpoints that cannot be converted are refused by what does not fit, and nothing is written."""

from __future__ import annotations

import pickle

import pytest
import torch

from tfq_bench import api
from tfq_bench_diffusers.convert import convert
from tfq_bench_diffusers.convert.__main__ import main
from tfq_bench_diffusers.model import DiffusersModel

from .checkpoints import converted, with_average

U = "model.diffusion_model."


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("ldm4-bedroom", {"teacher.weight": torch.ones(1)}, "not known: 'teacher.weight'"),
        (
            "ldm4-bedroom",
            {"cond_stage_model.embedding.weight": torch.ones(5, 6)},
            "expected 0 classes.*found 5",
        ),
        (
            "ldm4-bedroom",
            {U + "input_blocks.4.2.conv.weight": torch.ones(3)},
            "no place in it: 'model.diffusion_model.input_blocks.4.2.conv.weight'",
        ),
        (
            "ldm4-imagenet",
            {U + "label_emb.weight": torch.ones(3)},
            "no place in it: 'model.diffusion_model.label_emb.weight'",
        ),
        (
            "ldm4-bedroom",
            {"first_stage_model.colorize": torch.ones(3)},
            "no place in it: 'first_stage_model.colorize'",
        ),
        (
            "ldm4-bedroom",
            {U + "input_blocks.1.0.more.weight": torch.ones(3)},
            "'down_blocks.0.resnets.0.more.weight' besides",
        ),
        (
            "ldm4-bedroom",
            {U + "out.2.bias": None},
            "tensors of this family's UNet2DModel.*no 'conv_out.bias'",
        ),
        (
            "ldm4-bedroom",
            {"first_stage_model.quantize.embedding.weight": None},
            "family's VQModel.*no 'quantize.embedding.weight'",
        ),
        (
            "ldm4-bedroom",
            {U + "out.2.bias": torch.ones(7)},
            r"other shapes: 'conv_out.bias \(7,\), not \(3,\)'",
        ),
        ("ldm4-bedroom", {"betas": torch.linspace(1e-4, 0.02, 1000)}, "from 0.0015 to 0.0195"),
        ("ldm8-church", {"scale_factor": None}, "expected 'scale_factor'"),
        ("ldm4-imagenet", {"cond_stage_model.embedding.weight": None}, "expected 5 classes"),
    ],
)
def test_tensors_that_do_not_fit_are_named(originals, tmp_path, name, change, match):
    """Unknown, missing and misshapen ones; nothing is written then."""
    original = originals[name]
    tensors = {**original.tensors, **change}
    tensors = {key: value for key, value in tensors.items() if value is not None}
    with pytest.raises(api.AssetError, match=match):
        converted(original, tmp_path, tensors)
    assert ["model.safetensors"] == [path.name for path in tmp_path.iterdir()]


def test_average_must_cover_every_weight(originals, tmp_path):
    """A mixture of averages and last weights would be no model that anybody trained."""
    original = originals["ldm4-bedroom"]
    tensors = with_average(original.tensors, 1.0)
    del tensors["model_ema.diffusion_modelout2bias"]
    with pytest.raises(api.AssetError, match=r"none of 'model_ema\.diffusion_modelout2bias'"):
        converted(original, tmp_path, tensors)
    surplus = {**with_average(original.tensors, 1.0), "model_ema.other": torch.ones(1)}
    with pytest.raises(api.AssetError, match=r"not known: 'model_ema\.other'"):
        converted(original, tmp_path, surplus)


class Callback:
    """Stands for what trainers put into their checkpoints."""


def test_files_that_run_code_are_not_read(originals, tmp_path):
    """A pickle of other objects is refused with a way out."""
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": originals["ldm4-bedroom"].tensors, "callbacks": Callback()}, path)
    with pytest.raises(api.AssetError, match=r"other Python objects.*Callback.*save its tensors"):
        convert(path, originals["ldm4-bedroom"].family, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.ckpt", None, "found no file"),
        ("a.ckpt", b"no archive", "expected a"),
        ("a.safetensors", b"no tensors", "expected a safetensors file"),
        ("a.ckpt", pickle.dumps({"state_dict": 3}, protocol=2), "expected a"),
    ],
)
def test_files_of_other_kinds_are_refused(originals, tmp_path, name, content, match):
    """In the terms of the tool, without a traceback of torch."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(api.AssetError, match=match):
        convert(tmp_path / name, originals["ldm4-bedroom"].family, tmp_path / "out")


def test_nothing_is_written_over(originals, tmp_path):
    """A folder that is there stays as it is."""
    (tmp_path / "out").mkdir()
    with pytest.raises(api.UsageError, match="not there yet"):
        converted(originals["ldm4-bedroom"], tmp_path)


def test_command_tells_errors_without_a_traceback(originals, tmp_path, capsys):
    """Exit code and one line; a small model is not the published family."""
    path = originals["ldm4-bedroom"].save(tmp_path / "model.safetensors")
    arguments = ["--checkpoint", str(path), "--family", "ldm4-bedroom", "--to", str(tmp_path / "o")]
    assert 2 == main(arguments)
    assert "other shapes" in capsys.readouterr().err


def test_command_writes_the_folder(originals, tmp_path, monkeypatch, capsys):
    """What `source` of a model can name."""
    original = originals["ldm4-imagenet"]
    path = original.save(tmp_path / "model.ckpt")
    monkeypatch.setattr("tfq_bench_diffusers.convert.__main__.FAMILIES", {"small": original.family})
    target = tmp_path / "deep" / "o"
    assert 0 == main(["--checkpoint", str(path), "--family", "small", "--to", str(target)])
    assert str(target) in capsys.readouterr().out
    assert (3, 16, 16) == DiffusersModel(source=str(target)).latent_shape
