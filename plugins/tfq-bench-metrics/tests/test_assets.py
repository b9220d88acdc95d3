"""The published weights that these metrics need: when, which, and that fetched ones are used."""

from __future__ import annotations

import hashlib
import json
import sys
import types

import pytest

from tfq_bench.api import AssetError
from tfq_bench.cli import main
from tfq_bench_metrics.clip_files import clip_assets
from tfq_bench_metrics.lpips import Lpips
from tfq_bench_metrics.lpips_files import alexnet_assets


@pytest.fixture
def asset_folder(tmp_path, monkeypatch):
    """Where fetched files lie; not there yet."""
    folder = tmp_path / "assets"
    monkeypatch.setenv("TFQ_BENCH_ASSETS", str(folder))
    return folder


def place(folder, name):
    """A file of that name among the fetched ones, and its digest."""
    folder.mkdir()
    (folder / name).write_bytes(b"some weights")
    return hashlib.sha256(b"some weights").hexdigest()


def test_alexnet_is_needed_unless_it_is_handed_over():
    """No more of its digest is published than eight digits."""
    (asset,) = alexnet_assets({"weights": "", "sha256": ""})
    assert ("alexnet-owt-7be5be79.pth", "7be5be79") == (asset.name, asset.sha256)
    assert () == alexnet_assets({"weights": "mine.pth", "sha256": ""})


def test_clip_is_needed_from_the_hub_unless_a_folder_is_given(tmp_path, monkeypatch):
    """Found in the hub's cache only when nothing of it lacks."""
    hub = types.ModuleType("huggingface_hub")
    hub.snapshot_download = lambda name, *, local_files_only: str(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    options = {"weights": "", "hub": "some/clip"}
    (asset,) = clip_assets(options)
    assert ("some/clip", "hub", None) == (asset.source, asset.kind, asset.path)
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_bytes(b"{}")
    (asset,) = clip_assets(options)
    assert tmp_path == asset.path
    assert () == clip_assets({"weights": "folder", "hub": "some/clip"})


def test_the_fetched_alexnet_is_used(asset_folder):
    """Without an option, and only with the digest that it must have."""
    digest = place(asset_folder, "alexnet-owt-7be5be79.pth")
    Lpips(weights="", sha256=digest)
    with pytest.raises(AssetError, match=f"SHA-256 {digest}, expected 7be5be79"):
        Lpips(weights="", sha256="")


def test_assets_are_listed_once_the_plugin_is_installed(plugin_host, asset_folder, capsys):
    """With what needs them; without the plugin the host knows of neither."""
    names = {"alexnet-owt-7be5be79.pth", "openai/clip-vit-large-patch14"}

    def listed():
        assert 0 == main(["assets", "list", "--json"])
        return {asset["name"] for asset in json.loads(capsys.readouterr().out)}

    plugin_host.install("builtin", "tfq_bench.host.builtin", distribution="tfq-bench")
    assert not names & listed()
    plugin_host.install("metrics", "tfq_bench_metrics.plugin", distribution="tfq-bench-metrics")
    assert names <= listed()
