"""Of the GPUs of a host, a result names the one that its task computed on."""

import types

import pytest
import torch

from tfq_bench.provenance.environment import (
    arithmetic_facts,
    capture,
    environment_id,
    hardware_fingerprint,
    speed_facts,
)
from tfq_bench.provenance.gpus import gpu_name, gpu_speed, visible_gpus

SIZES = {"small": 40 * 2**30, "large": 80 * 2**30}


@pytest.fixture
def host(monkeypatch):
    """A function that gives the host GPUs of these names."""

    def of(*names):
        gpus = [
            types.SimpleNamespace(
                name=name, total_memory=SIZES[name], major=9, minor=0, multi_processor_count=132
            )
            for name in names
        ]
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(gpus))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: gpus[number])

    return of


def test_gpus_are_described_in_order(host):
    """All of them, or the first ones; none where there is none."""
    host("large", "small")
    assert ["large", "small"] == [gpu["name"] for gpu in visible_gpus()]
    large = {"name": "large", "memory_bytes": 80 * 2**30}
    assert [{**large, "capability": "9.0", "multiprocessors": 132}] == visible_gpus(1)
    assert "large" == gpu_name()
    host()
    assert ([], "") == (visible_gpus(), gpu_name())


def test_a_screen_is_no_other_card(host):
    """A few megabytes of memory are no other speed, half of it is."""
    host("large", "small")
    large, small = visible_gpus()
    assert gpu_speed(large) == gpu_speed({**large, "memory_bytes": large["memory_bytes"] - 2**23})
    assert gpu_speed(large) != gpu_speed({**large, "memory_bytes": small["memory_bytes"]})


def test_other_gpus_of_a_host_change_nothing(host):
    """Whoever sees one GPU of many gives the keys and the environment of who sees all."""

    def told():
        environment = capture(())
        ids = environment_id(environment), hardware_fingerprint(environment)
        return arithmetic_facts("cuda"), speed_facts("cuda"), ids

    host("large")
    alone = told()
    assert "large" == alone[0]["GPU"]
    for others in (("large",), ("large", "large", "large"), ("small",)):
        host("large", *others)
        assert alone == told()
    host("small", "large")
    assert all(one != other for one, other in zip(alone, told(), strict=True))
