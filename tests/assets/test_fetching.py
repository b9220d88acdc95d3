"""Fetching, from a server on this machine and from a stand-in for the hub."""

import builtins
import email.message
import hashlib
import io
import socket
import urllib.request
import urllib.response
from dataclasses import replace

import huggingface_hub
import pytest

from tfq_bench.api import Asset, fetched_file
from tfq_bench.assets.fetching import fetch
from tfq_bench.errors import AssetError

CONTENT = bytes(range(256)) * 8192  # two reads
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def quiet(done, total):
    """No progress."""


@pytest.fixture
def file_asset(web):
    """A file that the server has, with fields changed."""
    web.pages["weights.bin"] = CONTENT

    def make(**changes):
        stated = {"source": f"{web.url}weights.bin", "size": len(CONTENT), "sha256": DIGEST}
        return Asset(
            **{
                "name": "weights.bin",
                "what": "weights",
                "kind": "file",
                "path": None,
                "advice": "Ask the author.",
                **stated,
                **changes,
            }
        )

    return make


def get(asset, progress=quiet):
    """What `fetch` returns for a file that is found by its name."""
    return fetch(
        asset, look=lambda: replace(asset, path=fetched_file(asset.name)), progress=progress
    )


def test_a_file_lies_among_the_fetched_ones(file_asset, asset_folder):
    """Whole, and alone: nothing temporary is left."""
    seen = []
    found = get(file_asset(), progress=lambda done, total: seen.append((done, total)))
    assert asset_folder / "weights.bin" == found.path
    assert CONTENT == found.path.read_bytes()
    assert ["weights.bin"] == [path.name for path in asset_folder.iterdir()]
    assert (len(CONTENT), len(CONTENT)) == seen[-1]
    assert len(seen) > 1


@pytest.mark.parametrize("page", ["other.bin", "short.bin", "absent.bin"])
def test_what_is_not_as_expected_replaces_nothing(file_asset, web, asset_folder, page):
    """Another digest, a broken connection and an error of the server leave the old file."""
    web.pages |= {"other.bin": CONTENT[::-1], "short.bin": CONTENT}
    asset_folder.mkdir()
    (asset_folder / "weights.bin").write_text("old")
    fault = {
        "other.bin": f"gave another file: expected the SHA-256 {DIGEST}, found ",
        "short.bin": "cannot fetch",
        "absent.bin": "the server answered 404",
    }
    with pytest.raises(AssetError, match=fault[page]):
        get(file_asset(source=web.url + page, path=asset_folder / "weights.bin"))
    assert [("weights.bin", "old")] == [(p.name, p.read_text()) for p in asset_folder.iterdir()]


def test_a_broken_connection_is_told_as_one(file_asset, web):
    """The server said how much there is, so that nobody looks for another digest."""
    web.pages["short.bin"] = CONTENT
    with pytest.raises(AssetError, match=f"ended after 3 of {len(CONTENT)} bytes"):
        get(file_asset(source=f"{web.url}short.bin", size=None))


def test_a_server_that_is_not_there(file_asset):
    """The cause, what to do, and the other way to get it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(AssetError) as caught:
        get(file_asset(source=f"http://127.0.0.1:{port}/weights.bin"))
    assert "refused. Repeat the command when the network allows it. Ask the author." in (
        str(caught.value)
    )


def test_only_the_web_is_asked(file_asset, tmp_path):
    """An address of another kind is a defect of the plugin, not a way to read files."""
    (tmp_path / "weights.bin").write_bytes(CONTENT)
    with pytest.raises(AssetError, match="expected an address that starts with https://"):
        get(file_asset(source=f"file://{tmp_path}/weights.bin"))


HUB = Asset(
    name="model",
    what="a model",
    kind="hub",
    source="somebody/model",
    revision="v1",
    path=None,
    patterns=(("*.safetensors",), ("*.bin",)),
)


@pytest.fixture
def hub(monkeypatch):
    """Stands in for the hub: what was asked for, and what it raises if anything."""

    class Hub:
        def __init__(self):
            self.asked, self.error = [], None

        def snapshot_download(self, source, **arguments):
            self.asked.append((source, arguments))
            if self.error is not None:
                raise self.error

    found = Hub()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", found.snapshot_download)
    return found


def test_a_second_format_is_fetched_only_where_the_first_is_not_enough(hub, tmp_path):
    """At the revision, with the patterns of each group in turn."""
    for enough, groups in ((1, ["*.safetensors"]), (2, ["*.safetensors", "*.bin"])):
        hub.asked.clear()
        found = fetch(
            HUB,
            look=lambda n=enough: replace(HUB, path=tmp_path if len(hub.asked) >= n else None),
            progress=quiet,
        )
        assert tmp_path == found.path
        assert [("somebody/model", "v1")] * enough == [(s, a["revision"]) for s, a in hub.asked]
        assert groups == [pattern for _, a in hub.asked for pattern in a["allow_patterns"]]
        assert not any(a["force_download"] for _, a in hub.asked)


def test_a_damaged_snapshot_is_not_taken_from_the_cache(hub, tmp_path):
    """The hub's client believes its cache unless it is told not to."""
    fetch(replace(HUB, path=tmp_path), look=lambda: replace(HUB, path=tmp_path), progress=quiet)
    assert [True] == [arguments["force_download"] for _, arguments in hub.asked]


def test_a_repository_without_what_is_needed(hub):
    """All formats were tried."""
    with pytest.raises(AssetError, match="was fetched, but not all that is needed is in it"):
        fetch(HUB, look=lambda: HUB, progress=quiet)
    assert 2 == len(hub.asked)


def test_what_the_hub_refuses(hub):
    """The cause in one line, and how to log in."""
    hub.error = RuntimeError("401\nCannot access gated repo.")
    with pytest.raises(AssetError) as caught:
        fetch(HUB, look=lambda: HUB, progress=quiet)
    assert "cannot fetch somebody/model: 401 Cannot access gated repo." in str(caught.value)
    assert "hf auth login" in str(caught.value)


def test_without_the_client_of_the_hub(monkeypatch):
    """The message says what to install."""
    real = builtins.__import__

    def refuse(name, *arguments, **named):
        if name == "huggingface_hub":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(AssetError, match="pip install huggingface_hub"):
        fetch(HUB, look=lambda: HUB, progress=quiet)


@pytest.mark.parametrize("digest", ["", DIGEST[:8], DIGEST[:63]])
def test_what_could_be_another_file_is_not_fetched(file_asset, web, asset_folder, digest):
    """Whoever sits on the way could send one: https, or the whole digest. Nothing is asked for."""
    with pytest.raises(AssetError, match="is not encrypted, and no full SHA-256"):
        get(file_asset(sha256=digest))
    assert [] == web.asked
    assert not asset_folder.exists() or not list(asset_folder.iterdir())


@pytest.mark.parametrize(
    "source", ["ftp://example.org/w", "file:///etc/passwd", "//example.org/w", "w.bin", "HTTP:w"]
)
def test_other_addresses_are_none(file_asset, source):
    """Also with a digest where nothing is encrypted and the address has no host."""
    with pytest.raises(AssetError, match=r"expected an address|is not encrypted"):
        get(file_asset(source=source, sha256=""))


class _Leads(urllib.request.BaseHandler):
    """Answers every encrypted address by leading to `target`."""

    handler_order = 100  # before the one that would really open a connection

    def __init__(self, target):
        self.target = target

    def https_open(self, request):
        """A redirection, as a server of the first address would send it."""
        headers = email.message.Message()
        headers["Location"] = self.target
        found = urllib.response.addinfourl(io.BytesIO(), headers, request.full_url, 302)
        found.msg = "Found"
        return found


def test_an_encrypted_address_may_not_lead_to_one_that_is_not(file_asset, web, monkeypatch):
    """The server behind it is never asked, unless the digest says what must come."""
    leads = _Leads(f"{web.url}weights.bin")
    build = urllib.request.build_opener
    monkeypatch.setattr(urllib.request, "build_opener", lambda *more: build(leads, *more))
    secure = "https://example.org/weights.bin"
    with pytest.raises(AssetError, match=r"leads elsewhere: http://127\S+ is not encrypted"):
        get(file_asset(source=secure, sha256=""))
    assert [] == web.asked
    assert CONTENT == get(file_asset(source=secure)).path.read_bytes()


def test_no_more_is_fetched_than_was_said(file_asset, web, asset_folder):
    """A server that sends without end does not fill the disk."""
    web.pages["weights.bin"] = CONTENT + CONTENT[: 1 << 18]
    seen = []
    with pytest.raises(AssetError, match=f"more than the expected {len(CONTENT)} bytes came"):
        get(file_asset(), progress=lambda done, total: seen.append(done))
    assert 2 * len(CONTENT) > seen[-1]
    assert [] == list(asset_folder.iterdir())
