"""The parts of the CPU benchmark: who is measured, in which order, and what is made of it."""

import math
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The folder that the script finds first."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_contestants_take_turns():
    """A round that does not count, then each once a round, in an order that rotates."""
    from cpu.rounds import interleaved

    calls = []
    ways = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in "abc"}
    times = interleaved(ways, 2)
    assert ["c", "a", "b", "a", "b", "c", "b", "c", "a"] == calls
    assert {"a": [4.0, 9.0], "b": [5.0, 7.0], "c": [6.0, 8.0]} == times


def test_groups():
    """All in one, or so many beside the baseline."""
    from cpu.rounds import grouped

    assert [["a", "b"], ["c"]] == grouped("abc", 2)
    assert [["a", "b", "c"]] == grouped("abc", 0)
    assert [] == grouped("", 0)


def row(name, times, **told):
    """A row of the table."""
    from cpu.rounds import Row

    return Row(name=name, times=times, sqnr_db=math.inf, own_bytes=2**30, peak_bytes=2**31, **told)


def test_ratios_are_taken_within_a_round():
    """Of one group, whatever the clock did; else through the baseline, and marked."""
    from cpu.rounds import ratio

    together = {"base": [10.0, 20.0, 40.0], "mine": [5.0, 10.0, 20.0]}
    base = row("base", {"base": [10.0, 20.0, 40.0, 12.0]})
    mine, other = row("mine", together), row("other", {"base": [12.0], "other": [24.0]})
    assert ratio(mine, base, "base").startswith("2.00")
    assert ratio(base, mine, "base").startswith("0.50")
    assert "1" == ratio(mine, mine, "base")
    assert "~4.00" == ratio(mine, other, "base")


def test_the_table():
    """A column for each base that was measured, and none for the others."""
    from cpu.rounds import table

    base = row("base", {"base": [10.0]})
    mine = row("mine", {"base": [10.0], "mine": [5.0]})
    head, _, first, second = table([base, mine], ["base", "absent"]).splitlines()
    assert "| contestant | ms | x base | SQNR dB | own GiB | peak GiB |" == head
    assert "| base | 10.0 | 1 | inf | 1.0 | 2.0 |" == first
    assert "| mine | 5.0 | 2.00 | inf | 1.0 | 2.0 |" == second


def test_signal_to_noise():
    """In decibels; infinite for the same bits."""
    from cpu.rounds import sqnr_db

    x = np.ones(4, np.float32)
    assert pytest.approx(20) == sqnr_db(x, x * np.float32(1.1))
    assert math.inf == sqnr_db(x, x)


def test_who_is_measured():
    """Of SDXL what fits; what is asked for by name is measured whatever the network."""
    import cpu_speed
    from cpu.networks import NETWORKS

    def chosen(*words):
        args = cpu_speed.parser().parse_args(words)
        return cpu_speed._chosen(args, NETWORKS[args.network])

    assert "FP32 compiled" in chosen()
    assert "FP32 eager" not in chosen()
    large = chosen("--network", "sdxl")
    assert {"OpenVINO FP32", "OpenVINO BF16", "cpu W8A8", "openvino W4A8"} <= set(large)
    assert not [name for name in large if "NNCF" in name or "compiled" in name]
    assert ["torchao int8 dynamic"] == chosen("--network", "sdxl", "--only", "dynamic")
    assert "BF16 eager" not in chosen("--skip", "BF16")


def test_what_cannot_be_made_is_told(tmp_path):
    """The reason of a process comes back as the reason of the contestant."""
    from cpu.prepared import Setup
    from cpu.workers import Failed, Worker

    setup = Setup(network="cifar10", size=0, batch=1, threads=1, folder=tmp_path)
    with pytest.raises(Failed, match=r"FileNotFoundError: .*network\.pt"):
        Worker(setup, "FP32 eager")


def test_the_engine_says_what_it_computes_in(monkeypatch):
    """Float32 is what it executes when asked for; the hint alone is not believed."""
    from cpu.contestants import _check_precision

    _check_precision("f32")
    monkeypatch.setattr("tfq_bench_openvino.trials.compile_model", _in_float32)
    with pytest.raises(RuntimeError, match="asked for u4, OpenVINO executes f32"):
        _check_precision("u4")


def _in_float32(model, precision):
    from tfq_bench_openvino import engine

    assert "u4" == precision
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    return engine.Compiled(engine._core().compile_model(model, "CPU", settings))
