"""Where results are written may be anything that has a name: it is written into, not replaced."""

import os

import pytest

from tfq_bench.errors import StoreError
from tfq_bench.store.disk import write_atomically


def test_a_pipe_is_written_into(tmp_path):
    """As `--junit /dev/stdout` asks: renaming a file over it would take it away from everybody."""
    ours, theirs = os.pipe()
    write_atomically(tmp_path.joinpath(f"/dev/fd/{theirs}"), "über\n")
    os.close(theirs)
    assert "über\n" == os.read(ours, 100).decode()
    os.close(ours)


def test_a_named_pipe_stays_one(tmp_path):
    """Also one that has a place in a folder of ours."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(path, "a\n")
    assert path.is_fifo()
    assert b"a\n" == os.read(reader, 100)
    os.close(reader)
    assert [path] == list(tmp_path.iterdir())


def test_a_folder_is_no_file(tmp_path):
    """It is said, and nothing is left beside it."""
    path = tmp_path / "here"
    path.mkdir()
    with pytest.raises(StoreError, match="it is a folder"):
        write_atomically(path, "a")
    assert [path] == list(tmp_path.iterdir())
