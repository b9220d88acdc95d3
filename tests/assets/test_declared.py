"""Assets: what they state, where they lie, and when they are damaged."""

import hashlib
import re
from pathlib import Path

import pytest

from tfq_bench import api
from tfq_bench.assets.declared import asset_fault, assets_folder, fetched_file, readable_size

CONTENT = b"eleven byte"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def asset(**changes):
    """A file, with fields changed."""
    stated = {
        "name": "weights.bin",
        "what": "weights",
        "kind": "file",
        "source": "https://example.org/weights.bin",
        "path": None,
        **changes,
    }
    return api.Asset(**stated)


@pytest.mark.parametrize("name", ["../weights", "a/b", "", ".hidden", "a b"])
def test_a_file_has_a_plain_name(name):
    """Its name is a name in the folder of fetched files, never a path out of it."""
    with pytest.raises(api.BrokenPlugin, match="expected a plain file name"):
        asset(name=name)


def test_a_digest_is_hexadecimal():
    """Anything else can match no file, so it is a defect of the plugin."""
    with pytest.raises(api.BrokenPlugin, match="sha256 must be lower-case hexadecimal"):
        asset(sha256="ABC")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": 7}, "name should be text of one line"),
        ({"name": None}, "name should be text of one line"),
        ({"name": "x" * 300}, "expected a plain file name"),
        ({"what": "a\x1b[2Jb"}, "what should be text of one line"),
        ({"licence": "MIT\u202e"}, "licence should be text of one line"),
        ({"advice": "x" * 10_000}, "advice should be text of one line"),
        ({"source": b"https://example.org"}, "source should be text"),
        ({"sha256": None}, "sha256 should be text"),
        ({"kind": "http"}, "kind should be 'file' or 'hub', found http"),
        ({"path": "weights.bin"}, "path should be a Path or None"),
        ({"size": -1}, "size should be a number of bytes"),
        ({"size": "11"}, "size should be a number of bytes"),
        ({"size": True}, "size should be a number of bytes"),
        ({"patterns": "*.safetensors"}, "patterns should be a tuple"),
        ({"patterns": ("*.safetensors",)}, "patterns should be a tuple"),
        ({"patterns": (("*.bin", 3),)}, "patterns should be a tuple"),
        ({"kind": "hub", "name": "a\0b"}, "name should be text of one line"),
    ],
)
def test_every_field_is_what_it_says(changes, reason):
    """A plugin that states something else is told so, by name, before it is shown or fetched."""
    with pytest.raises(api.BrokenPlugin, match=re.escape(reason)):
        asset(**changes)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "unknown"),
        ({"sha256": "7be5be79"}, "first 8 digits"),
        ({"sha256": "0" * 64}, "pinned"),
        ({"kind": "hub", "revision": "main"}, "unknown"),
        ({"kind": "hub", "revision": "0" * 40}, "commit"),
    ],
)
def test_what_is_known_about_the_content(changes, state):
    """A tag or branch pins nothing; a commit pins a repository."""
    assert state == asset(**changes).digest_state


def test_the_folder_is_that_of_the_environment(monkeypatch, tmp_path):
    """TFQ_BENCH_ASSETS wins; without it files lie in the user's cache."""
    monkeypatch.setenv("TFQ_BENCH_ASSETS", str(tmp_path / "here"))
    assert tmp_path / "here" == assets_folder()
    monkeypatch.delenv("TFQ_BENCH_ASSETS")
    assert Path.home() / ".cache/tfq-bench/assets" == assets_folder()


def test_fetched_files_are_found(asset_folder):
    """By their name, once they are there."""
    assert fetched_file("weights.bin") is None
    asset_folder.mkdir()
    (asset_folder / "weights.bin").write_bytes(CONTENT)
    assert asset_folder / "weights.bin" == fetched_file("weights.bin")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"size": 11, "sha256": DIGEST}, ""),
        ({"sha256": DIGEST[:8]}, ""),
        ({}, ""),
        ({"size": 12}, "expected 12 bytes, found 11"),
        ({"sha256": "0" * 8}, f"expected the SHA-256 00000000, found {DIGEST}"),
    ],
)
def test_a_file_is_held_against_what_is_known(tmp_path, changes, fault):
    """Size and digest count as far as they are stated, and no further."""
    path = tmp_path / "weights.bin"
    path.write_bytes(CONTENT)
    assert fault == asset_fault(asset(path=path, **changes))


def test_a_size_is_known_to_one_per_cent(tmp_path):
    """Pages state sizes in three digits."""
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(995))
    assert "" == asset_fault(asset(path=path, size=1000))
    path.write_bytes(bytes(980))
    assert asset_fault(asset(path=path, size=1000))


@pytest.fixture
def snapshot(tmp_path):
    """A repository as the hub's cache holds it: links to blobs that are named by digest."""
    blobs, found = tmp_path / "blobs", tmp_path / "snapshots" / "0123"
    blobs.mkdir()
    (found / "unet").mkdir(parents=True)
    (blobs / DIGEST).write_bytes(CONTENT)
    (found / "unet" / "weights.safetensors").symlink_to(blobs / DIGEST)
    (found / "config.json").write_text("{}")
    return found


def test_a_snapshot_is_checked_by_the_names_of_its_blobs(snapshot):
    """So that damage shows without a pin."""
    found = asset(kind="hub", path=snapshot)
    assert "" == asset_fault(found)
    (snapshot / "unet" / "weights.safetensors").resolve().write_bytes(b"other words")
    assert "unet/weights.safetensors has changed since it was fetched" == asset_fault(found)


def test_a_snapshot_holds_the_file_that_is_pinned(snapshot):
    """Whatever that file is called."""
    assert "" == asset_fault(asset(kind="hub", path=snapshot, sha256=DIGEST))
    other = asset(kind="hub", path=snapshot, sha256="0" * 64)
    assert f"no file of it has the SHA-256 {'0' * 64}" == asset_fault(other)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "unknown"),
        (11, "11 B"),
        (1_500, "1.5 kB"),
        (95_607_719, "95.6 MB"),
        (244_400_000, "244 MB"),
        (21_800_000_000, "21.8 GB"),
    ],
)
def test_sizes_are_readable(size, text):
    """Three digits, in units of a thousand."""
    assert text == readable_size(size)
