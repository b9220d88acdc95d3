"""Seconds, memory and calls of a piece of work, also when it is stopped and goes on."""

import copy
import json
import subprocess
import sys

import pytest
import torch

from tfq_bench.pipeline import cost
from tfq_bench.pipeline.cost import LEDGER, Meter
from tfq_bench.testing.tiny import load_tiny


def call(network):
    """One forward pass of two images."""
    network(torch.zeros(2, 3, 8, 8), torch.zeros(2))


def test_calls_of_the_network_and_its_copies_are_counted():
    """A method works on a copy; batches count once; nothing is counted afterwards."""
    loaded = load_tiny()
    with Meter(loaded) as meter:
        call(loaded.network)
        twin = copy.deepcopy(loaded.network)
        call(twin)
        call(twin)
        twin.first.conv1(torch.zeros(1, 16, 8, 8))
    call(loaded.network)
    assert 3 == meter.facts["network_calls"]
    assert not loaded.network._forward_pre_hooks


MEMORY = """
import torch
from tfq_bench.pipeline import cost
from tfq_bench.testing.tiny import load_tiny

cost._SAMPLING = {sampling}
loaded = load_tiny()
with cost.Meter(loaded) as meter:
    torch.ones(16 * 2**20).sum()  # 64 MB, held and given back before anybody could look
print(meter.facts["peak_memory_bytes"])
"""


def test_memory_is_what_the_work_held_at_most():
    """64 MB that are held for a moment and given back are seen, by whoever never looks.

    In a process of its own: what other tests have freed before is not seen there, and the new
    high-water mark, which the system keeps, depends on no thread's turn.
    """
    source = MEMORY.format(sampling=3600.0)
    ended = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert 0.9 * 64 * 2**20 < int(ended.stdout) < 4 * 64 * 2**20


def test_nothing_is_left_behind_after_a_failure():
    """An exception inside goes through, and the network is as it was."""
    loaded = load_tiny()
    with pytest.raises(ValueError, match="broken"), Meter(loaded):
        raise ValueError("broken")
    assert not loaded.network._forward_pre_hooks


def test_stopped_attempts_are_counted(tmp_path, monkeypatch):
    """What an attempt had cost when it was stopped is part of the next one's cost."""
    monkeypatch.setattr(cost, "_SAVING", -1.0)
    loaded = load_tiny()
    told = []
    with Meter(loaded, ledger=tmp_path / "later") as meter:
        report = meter.kept(lambda *given: told.append(given))
        report(0.1, "no checkpoint yet")
        (tmp_path / "later").mkdir()
        call(loaded.network)
        report(0.5, "half")
        so_far = json.loads((tmp_path / "later" / LEDGER).read_text())
    assert [(0.1, "no checkpoint yet"), (0.5, "half")] == told
    assert 1 == so_far["network_calls"]
    with Meter(loaded, ledger=tmp_path / "later") as again:
        call(loaded.network)
    assert 2 == again.facts["network_calls"]
    assert so_far["seconds"] < again.facts["seconds"]
    assert so_far["peak_memory_bytes"] <= again.facts["peak_memory_bytes"]


@pytest.mark.parametrize("content", ["", "[]", '{"seconds": 1}', '{"seconds": "x"}'])
def test_ledger_that_cannot_be_read_is_ignored(tmp_path, content):
    """A file that was cut off does not stop the work."""
    (tmp_path / LEDGER).write_text(content)
    with Meter(load_tiny(), ledger=tmp_path) as meter:
        pass
    assert 0 == meter.facts["network_calls"]
