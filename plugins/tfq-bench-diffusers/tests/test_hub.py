"""What is fetched of a repository on the hub, with a folder that stands in for the hub."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import huggingface_hub
import pytest

from tfq_bench import api
from tfq_bench.cli import main
from tfq_bench_diffusers.families import PRESETS
from tfq_bench_diffusers.hub import named_assets, source_assets
from tfq_bench_diffusers.model import DiffusersModel

OPTIONS = {"source": "someone/tiny", "revision": "", "weights": "pretrained"}
COMMIT = "0123456789abcdef" * 2 + "01234567"

SUITE = """
schema = 1
suite.name = "one"
sampling = {sampler = "ddim", steps = 2, images = 2, batch = 2, shard = 2}
model = [{name = "diffusers", source = "someone/tiny"}]
quantizer = [{name = "fp"}]
metric = [{name = "bits"}]
"""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Repositories by id, downloads into a cache in the hub's layout, and what was downloaded."""
    found = types.SimpleNamespace(repositories={}, fetched=[])
    real = huggingface_hub.snapshot_download
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))

    def download(source, *, revision, local_files_only=False, allow_patterns=None, **_):
        if local_files_only:
            return real(source, revision=revision, local_files_only=True, cache_dir=cache)
        folder = cache / f"models--{source.replace('/', '--')}"
        for path in sorted(found.repositories[source].rglob("*")):
            name = path.relative_to(found.repositories[source]).as_posix()
            if path.is_file() and any(fnmatch.fnmatch(name, one) for one in allow_patterns):
                found.fetched.append(name)
                _store(path, folder, name)
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(COMMIT)
        return str(folder / "snapshots" / COMMIT)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return found


def _store(path: Path, folder: Path, name: str) -> None:
    blob = folder / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
    blob.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, blob)
    link = folder / "snapshots" / COMMIT / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(blob)


@pytest.fixture
def published(hub, make_folder, tmp_path):
    """A family's folder as a repository, with what repositories hold besides."""

    def publish(family: str) -> Path:
        folder = shutil.copytree(make_folder(family), tmp_path / "published" / family)
        (folder / "README.md").write_text("A model.")
        (folder / "all-in-one.safetensors").write_text("another format")
        for file in list(folder.rglob("*.safetensors")):
            for name in (f"{file.stem}.fp16.safetensors", f"{file.stem}.onnx", "flax.msgpack"):
                (file.parent / name).write_text("another format")
        hub.repositories["someone/tiny"] = folder
        return folder

    return publish


@pytest.fixture
def suite(tmp_path) -> str:
    """A suite that names the repository."""
    path = tmp_path / "one.toml"
    path.write_text(SUITE)
    return str(path)


@pytest.mark.parametrize("family", ["ddpm", "flat", "ldm", "sd", "sdxl", "dit", "pixart"])
def test_all_that_is_read_is_fetched_and_nothing_else(hub, published, make_folder, suite, family):
    """The fetched model is the published one: its digest covers every file that is read."""
    published(family)
    assert source_assets(OPTIONS)[0].path is None
    assert 0 == main(["assets", "fetch", "--suite", suite])
    (asset,) = source_assets(OPTIONS)
    assert COMMIT == asset.path.name
    expected = DiffusersModel(source=str(make_folder(family))).digest
    assert expected == DiffusersModel(source="someone/tiny").digest
    other = ("fp16", "onnx", "msgpack", "README", "all-in-one", "safety_checker")
    assert not [name for name in hub.fetched if any(word in name for word in other)]


def test_pickles_are_fetched_only_without_safetensors(hub, published, suite):
    """Both formats of a repository would be twice the download."""
    folder = published("ddpm")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_text("pickle")
    assert 0 == main(["assets", "fetch", "--suite", suite])
    assert not [name for name in hub.fetched if name.endswith(".bin")]
    assert "unet/diffusion_pytorch_model.safetensors" in hub.fetched


def test_weights_in_several_files_are_fetched_with_their_index(hub, published, suite):
    """But not those of a variant, wherever it stands in the name."""
    folder = published("ddpm")
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    names = [f"diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    variants = [
        "diffusion_pytorch_model-00001-of-00002.fp16.safetensors",
        "diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
    ]
    for name in (*names, *variants):
        shutil.copyfile(whole, folder / "unet" / name)
    whole.unlink()
    index = {"weight_map": dict(zip("ab", names, strict=True))}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps(index)
    )
    assert 0 == main(["assets", "fetch", "--suite", suite])
    found = [name for name in hub.fetched if "diffusion_pytorch_model" in name]
    assert [
        f"unet/{name}"
        for name in sorted([*names, "diffusion_pytorch_model.safetensors.index.json"])
    ] == sorted(found)


def test_a_broken_download_is_missing(hub, published, suite):
    """Until every component is there with its weights."""
    published("ldm")
    assert 0 == main(["assets", "fetch", "--suite", suite])
    (found,) = source_assets(OPTIONS)
    (found.path / "vqvae" / "diffusion_pytorch_model.safetensors").unlink()
    assert source_assets(OPTIONS)[0].path is None
    assert 0 == main(["assets", "fetch", "--suite", suite])
    assert source_assets(OPTIONS)[0].path is not None


def test_damage_in_the_cache_is_found(hub, published, suite, capsys):
    """No digest is known for this repository; that of the hub's cache is."""
    published("ddpm")
    assert 0 == main(["assets", "fetch", "--suite", suite])
    assert 0 == main(["assets", "check", suite])
    (found,) = source_assets(OPTIONS)
    weights = (found.path / "unet" / "diffusion_pytorch_model.safetensors").resolve()
    weights.write_bytes(weights.read_bytes()[::-1])
    assert 2 == main(["assets", "check", suite])
    assert "unet/diffusion_pytorch_model.safetensors has changed" in capsys.readouterr().out


def test_a_run_without_the_model_does_nothing(hub, suite, tmp_path, capsys):
    """Exit 2 and the command, before there is a run folder."""
    assert 2 == main(["run", suite, "--run", str(tmp_path / "run"), "--no-report"])
    told = capsys.readouterr().err
    assert "someone/tiny: a diffusion model (someone/tiny on the hub" in told
    assert "'tfq-bench assets fetch --suite SUITE'" in told
    assert not (tmp_path / "run").exists()
    assert [] == hub.fetched


def test_random_weights_need_a_configuration_at_most(hub, published, make_folder):
    """None where the architecture is packaged; no weights where it is the repository's."""
    drawn = {**OPTIONS, "weights": "random"}
    assert () == named_assets({**drawn, "source": PRESETS["sdxl"].source})
    (asset,) = source_assets(drawn)
    assert "someone/tiny:configuration" == asset.name
    assert not [one for group in asset.patterns for one in group if "safetensors" in one]
    published("sd")
    huggingface_hub.snapshot_download(
        "someone/tiny", revision=None, allow_patterns=list(asset.patterns[0])
    )
    assert source_assets(drawn)[0].path is not None
    assert source_assets(OPTIONS)[0].path is None
    expected = DiffusersModel(source=str(make_folder("sd")), weights="random").latent_shape
    assert expected == DiffusersModel(source="someone/tiny", weights="random").latent_shape


def test_a_local_folder_needs_nothing(hub, make_folder):
    """Nor does what cannot be on the hub, which the model refuses in its own words."""
    assert () == source_assets({**OPTIONS, "source": str(make_folder("ddpm"))})
    for source in ("", "/not/there", "a/b/c"):
        assert () == source_assets({**OPTIONS, "source": source})


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_named_models_are_assets_of_their_name(hub, name):
    """With licence and size; another revision is another asset, of which less is known."""
    preset = PRESETS[name]
    options = {**OPTIONS, "source": preset.source, "revision": preset.revision}
    (asset,) = named_assets(options)
    assert (name, preset.licence) == (asset.name, asset.licence)
    # The network in float32 is the least that is fetched.
    assert asset.size > 3.9 * preset.parameters
    assert "commit" == asset.digest_state or not preset.revision
    (other,) = named_assets({**options, "revision": "other"})
    assert (f"{preset.source}@other", None) == (other.name, other.size)


def test_a_model_without_a_name_is_fetched_through_its_suite(hub):
    """It says so wherever it is asked, not only when a plan is made."""
    with pytest.raises(api.AssetError, match="'tfq-bench assets fetch --suite SUITE'"):
        _ = DiffusersModel(source="someone/tiny").digest


def test_folders_are_looked_at_without_torch():
    """Listing assets stays fast."""
    code = "import sys, tfq_bench_diffusers.hub; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "False" == done.stdout.strip()
