"""The published weights that metrics need: when, which, and that fetched ones are used."""

import hashlib
import sys
import types

import pytest
from tfq_bench.metrics.clip_files import clip_assets

from tfq_bench.errors import AssetError
from tfq_bench.metrics.extractors import inception
from tfq_bench.published import alexnet_assets, inception_assets


def place(folder, name):
    """A file of that name among the fetched ones, and its digest."""
    folder.mkdir()
    (folder / name).write_bytes(b"some weights")
    return hashlib.sha256(b"some weights").hexdigest()


def test_inception_is_needed_by_its_extractor_alone():
    """Not by the default one, and not beside a file that is handed over."""
    options = {"extractor": "inception", "inception_weights": "", "inception_sha256": ""}
    (asset,) = inception_assets(options)
    assert ("inception-2015-12-05.pt", "pinned", None) == (
        asset.name,
        asset.digest_state,
        asset.path,
    )
    assert () == inception_assets({**options, "extractor": "efficientnet-lite0"})
    assert () == inception_assets({**options, "inception_weights": "mine.pt"})


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


def test_the_fetched_inception_is_used(asset_folder):
    """Without an option, and only with the digest that it must have."""
    digest = place(asset_folder, "inception-2015-12-05.pt")
    options = {"extractor": "inception", "inception_weights": "", "inception_sha256": ""}
    (asset,) = inception_assets(options)
    assert asset_folder / "inception-2015-12-05.pt" == asset.path
    assert digest == inception("", digest).digest
    with pytest.raises(AssetError, match=f"SHA-256 {digest}, expected f58cb9b6"):
        inception("")


def test_the_fetched_alexnet_is_used(asset_folder, host_metric):
    """Without an option, and only with the digest that it must have."""
    digest = place(asset_folder, "alexnet-owt-7be5be79.pth")
    host_metric("lpips", sha256=digest)
    with pytest.raises(AssetError, match=f"SHA-256 {digest}, expected 7be5be79"):
        host_metric("lpips")
