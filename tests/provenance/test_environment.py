"""The captured environment is stable, JSON-able and free of secrets."""

import copy
import importlib.metadata
import json
import sys

import pytest

from tfq_bench.provenance.environment import (
    capture,
    environment_id,
    hardware_fingerprint,
    stated_arithmetic,
)


def test_capture_is_stable_json_with_the_plugins(plugin_host):
    """Two captures in one process are equal and survive JSON."""
    plugin_host.install("bad", "raise RuntimeError", distribution="bad-dist", version="3.0")
    table = plugin_host.discover()
    environment = capture(table.plugins)
    assert environment == json.loads(json.dumps(environment))
    assert environment_id(environment) == environment_id(capture(table.plugins))
    assert {"torch", "numpy", "pluggy"} <= set(environment["versions"])
    assert {
        "name": "bad",
        "distribution": "bad-dist",
        "version": "3.0",
        "status": "broken",
    } in environment["plugins"]
    assert environment["hardware"]["cores"] >= 1
    assert environment["hardware"]["memory_bytes"] > 2**20


@pytest.mark.parametrize(
    ("metadata", "version"),
    [
        (b"\xff\xfe", "unknown"),
        (b"", "unknown"),
        (None, "unknown"),
        (b"Name: numpy\nVersion:\n", "unknown"),
        (b"Name: numpy\nVersion: 1.0\x1b[31m\n", r"1.0\x1b[31m"),
    ],
    ids=["binary", "empty", "none", "no-version", "control"],
)
def test_damaged_metadata_of_a_library_is_an_unknown_version(
    plugin_host, tmp_path, monkeypatch, metadata, version
):
    """A half-finished installation is recorded as such and ends no run."""
    (tmp_path / "numpy-1.0.dist-info").mkdir()
    if metadata is not None:
        (tmp_path / "numpy-1.0.dist-info" / "METADATA").write_bytes(metadata)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    versions = capture(plugin_host.discover().plugins)["versions"]
    assert version == versions["numpy"]
    assert importlib.metadata.version("torch") == versions["torch"]


def test_capture_holds_no_environment_variables_but_thread_settings(plugin_host, monkeypatch):
    """A token in the environment never reaches a run folder; a thread count does."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    environment = capture(plugin_host.discover().plugins)
    assert "hf_secret" not in json.dumps(environment)
    assert "3" == environment["threads"]["OMP_NUM_THREADS"]


def test_fingerprint_goes_by_hardware_only(plugin_host):
    """Software changes the id but not the fingerprint; another processor changes both."""
    environment = capture(plugin_host.discover().plugins)
    software = copy.deepcopy(environment)
    software["versions"]["torch"] = "0.0"
    assert environment_id(environment) != environment_id(software)
    assert hardware_fingerprint(environment) == hardware_fingerprint(software)
    hardware = copy.deepcopy(environment)
    hardware["hardware"]["cpu"] = "another"
    assert hardware_fingerprint(environment) != hardware_fingerprint(hardware)
    assert 12 == len(environment_id(environment)) == len(hardware_fingerprint(environment))


def test_fingerprint_ignores_a_few_bytes_of_memory(plugin_host):
    """A reboot that leaves the kernel another share of memory is the same hardware."""
    environment = capture(plugin_host.discover().plugins)
    environment["hardware"]["memory_bytes"] = 8 * 2**30
    rebooted = copy.deepcopy(environment)
    rebooted["hardware"]["memory_bytes"] -= 4096
    assert hardware_fingerprint(environment) == hardware_fingerprint(rebooted)


def test_arithmetic_is_read_of_what_is_stored(plugin_host):
    """All four facts of a capture; of what lacks them, or holds something else, what there is."""
    found = stated_arithmetic(capture(plugin_host.discover().plugins))
    assert {"threads", "torch", "instruction sets", "GPU"} == set(found)
    assert found["torch"] == importlib.metadata.version("torch")
    for strange in ({}, {"threads": 1, "versions": [], "hardware": None}, {"threads": {}}):
        assert {} == stated_arithmetic(strange)
    hardware = {"instruction_sets": [], "gpus": []}
    assert {"GPU": "none", "instruction sets": "none"} == stated_arithmetic({"hardware": hardware})
