"""A memory that is damaged, or of somebody else, is as good as none."""

import json
import logging
import os

import pytest

from tfq_bench.host.discovery.kept import Kept

from .marked_plugin import names

ENTRY = {"name": "marked", "distribution": "marked", "version": "1.0", "module": "marked_module"}
ANSWER = {"offers": [], "faults": [], "files": {}, "disturbances": []}


@pytest.fixture
def remembered(tmp_path, monkeypatch):
    """The file of a memory with one answer, which `Kept` finds."""
    monkeypatch.setenv("TFQ_BENCH_CACHE", str(tmp_path))
    Kept("1.0").add([(ENTRY, ANSWER)])
    assert ANSWER == {k: v for k, v in Kept("1.0").get(ENTRY).items() if k != "until"}
    (path,) = (tmp_path / "plugins").iterdir()
    return path


def edited(edit):
    """A damage by a function of the JSON that is there."""
    return lambda path: path.write_text(json.dumps(edit(json.loads(path.read_text()))))


def written(change):
    """A damage by a function of the bytes that are there."""
    return lambda path: path.write_bytes(change(path.read_bytes()))


def replaced(make):
    """A damage that puts something else where the file was."""
    return lambda path: (path.unlink(), make(path))


def lengthened(path):
    """A hole of 16 GiB behind what was there."""
    with path.open("r+b") as file:
        file.truncate(1 << 34)


def no_folder(path):
    """A file where the folder should be."""
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("")


DAMAGES = {
    "truncated": written(lambda content: content[:-20]),
    "empty": written(lambda content: b""),
    "binary": written(lambda content: bytes(range(256))),
    "deep": written(lambda content: b"[" * 100_000),
    "changed": written(lambda content: content.replace(b"offers", b"OFFERS", 1)),
    "one-digit": written(lambda content: content.replace(b"1.0", b"1.1", 1)),
    "huge": lengthened,
    "schema": edited(lambda whole: {**whole, "schema": 99}),
    "no-answers": edited(lambda whole: {"schema": whole["schema"], "sha256": whole["sha256"]}),
    "list": edited(lambda whole: []),
    "null": edited(lambda whole: None),
    "folder": replaced(lambda path: (path / "more").mkdir(parents=True)),
    "pipe": replaced(os.mkfifo),
    "device": replaced(lambda path: path.symlink_to("/dev/zero")),
    "loop": replaced(lambda path: path.symlink_to(path)),
    "no-folder": no_folder,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_memory_is_as_good_as_none(remembered, damage, caplog):
    """Nothing is found in it, nothing is said, and where it can be it is written anew."""
    damage(remembered)
    assert Kept("1.0").get(ENTRY) is None
    Kept("1.0").add([(ENTRY, ANSWER)])
    assert [] == [r for r in caplog.records if r.levelno > logging.DEBUG]


def test_the_memory_of_somebody_else_is_none(remembered, monkeypatch):
    """Whose file it is decides whether it is believed."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert Kept("1.0").get(ENTRY) is None


def test_another_host_has_another_memory(remembered):
    """Answers are those of one version of the host and its code."""
    assert Kept("1.1").get(ENTRY) is None


def test_an_answer_that_is_valid_json_and_wrong_is_none(marked):
    """Also with a checksum that fits: every field is held against its type."""
    import hashlib

    names(marked)

    def forge(whole):
        for answer in whole["answers"].values():
            for offer, _ in answer["offers"]:
                offer["api"] = "1"
        text = json.dumps(whole["answers"], sort_keys=True)
        return {**whole, "sha256": hashlib.sha256(text.encode()).hexdigest()}

    (path,) = (marked.cwd / "cache" / "plugins").iterdir()
    edited(forge)(path)
    assert "marked" in names(marked)
    assert 2 == marked.imports()
