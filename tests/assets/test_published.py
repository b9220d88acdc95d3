"""The published weights of FID: when they are needed, which, and that fetched ones are used."""

import hashlib

import pytest

from tfq_bench.assets.published import inception_assets
from tfq_bench.errors import AssetError
from tfq_bench.metrics.extractors import inception


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


def test_the_fetched_inception_is_used(asset_folder):
    """Without an option, and only with the digest that it must have."""
    digest = place(asset_folder, "inception-2015-12-05.pt")
    options = {"extractor": "inception", "inception_weights": "", "inception_sha256": ""}
    (asset,) = inception_assets(options)
    assert asset_folder / "inception-2015-12-05.pt" == asset.path
    assert digest == inception("", digest).digest
    with pytest.raises(AssetError, match=f"SHA-256 {digest}, expected f58cb9b6"):
        inception("")
