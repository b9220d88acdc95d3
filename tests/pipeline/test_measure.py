"""Timings come in interleaved pairs, and the peak of a call is what was really allocated."""

import torch

from tfq_bench.pipeline.measure import _peak_bytes, _resident_bytes, measure
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.testing.tiny import load_tiny


def test_rounds_alternate_between_cell_and_reference(monkeypatch):
    """Who goes first changes from round to round, so that drift of the clock hits both alike."""
    loaded, other = load_tiny(), load_tiny()
    lowered = simulate(other, None)
    order = []
    loaded.network.register_forward_hook(lambda *_: order.append("reference"))
    lowered.network.register_forward_hook(lambda *_: order.append("cell"))
    facts = measure(loaded, lowered, batch=2, warmup=1, rounds=3)
    pair = ["cell", "reference"]
    assert [*pair, *pair, *reversed(pair), *pair, "cell"] == order[1 - 1 : 9]
    assert (3, 3) == (len(facts["latency_ms"]), len(facts["reference_latency_ms"]))
    assert min(*facts["latency_ms"], *facts["reference_latency_ms"]) > 0
    assert 2 == facts["batch"]


def test_peak_is_the_highest_sum_of_what_lives():
    """Freed memory is counted back; tensors that were there before are not counted."""
    before = torch.empty(10_000)

    def call():
        first = torch.empty(1000)
        second = torch.empty(2000)
        del first
        third = torch.empty(500)
        return before, second, third

    assert 4 * 3000 == _peak_bytes(call, "cpu")


def test_measuring_memory_is_silent(capfd):
    """Nothing is written to the terminal, not even by C++."""
    _peak_bytes(lambda: torch.ones(4) + 1, "cpu")
    assert ("", "") == tuple(capfd.readouterr())


def test_shared_weights_count_once():
    """Two layers with one weight hold it once."""
    network = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4))
    network[1].weight = network[0].weight
    assert 4 * (16 + 4) == _resident_bytes(network)


def test_peak_memory_holds_weights_and_activations():
    """The figure that is published is what must fit: what stays and what a call adds."""
    loaded = load_tiny()
    facts = measure(loaded, simulate(loaded, None), batch=1, warmup=0, rounds=3)
    weights = sum(p.numel() * 4 for p in loaded.network.parameters())
    assert weights == facts["resident_bytes"]
    assert facts["peak_memory_bytes"] > weights
