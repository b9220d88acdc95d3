"""A step in one CUDA graph: when it is captured, what is counted, and when it runs eagerly."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tfq_bench.api import Scheme, StepCursor, timestep_tensor
from tfq_bench.quant.guidance import guided_prediction
from tfq_bench.quant.lower.watched import watched_layers
from tfq_bench.seeds import noise
from tfq_bench.testing.inputs import tiny_state
from tfq_bench.testing.tiny import load_tiny
from tfq_bench_cuda import graph as graph_module
from tfq_bench_cuda.backend import CudaBackend
from tfq_bench_cuda.graph import StepGraph


class Network(nn.Module):
    """Adds, and counts as layers do; `calls` are those of its Python code."""

    def __init__(self, executed):
        super().__init__()
        self.inner = nn.Identity()
        self.executed, self.calls = executed, 0

    def forward(self, x, scale=1, *, added=None):
        self.calls += 1
        self.executed["kernel"] = self.executed.get("kernel", 0) + 2
        return (self.inner(x) * scale + (0 if added is None else added["text"]),)


class Recorded:
    """A stand-in for `Captured` without a GPU: calls again at each replay, counted aside."""

    made = 0

    def __init__(self, call, leaves, structure, executed, stream, pool):
        type(self).made += 1
        self.call, self.structure, self.pool = call, structure, object()

    def replay(self, leaves, executed):
        args, kwargs = graph_module.tree_unflatten(leaves, self.structure)
        return self.call(*args, **kwargs)


@pytest.fixture
def made(monkeypatch):
    """A network in a `StepGraph` whose graphs are `Recorded`."""
    monkeypatch.setattr(graph_module, "Captured", Recorded)
    monkeypatch.setattr(Recorded, "made", 0)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    executed: dict[str, int] = {}
    network, step = Network(executed), StepCursor("cpu")
    graph = StepGraph(network, step, executed, device=torch.device("cpu"))
    graph.install()
    return SimpleNamespace(network=network, step=step, executed=executed, graph=graph)


@torch.no_grad()
def test_each_signature_is_captured_once(made):
    """Shapes, strides, types, structure and scalars tell calls apart; values of tensors do not."""
    x = torch.ones(2, 3)
    calls = [
        ((x,), {}),
        ((x + 1,), {}),
        ((x, 2), {}),
        ((x, 2.0), {}),
        ((x,), {"added": {"text": x}}),
        ((torch.ones(4, 3),), {}),
        ((x.double(),), {}),
        ((torch.ones(3, 2).T,), {}),
        ((x,), {"added": {"text": x}}),
    ]
    for args, kwargs in calls:
        made.network(*args, **kwargs)
    assert (7, 7) == (Recorded.made, made.graph.facts["graphs"])
    assert {"kernel": 2 * len(calls)} == made.executed


@torch.no_grad()
def test_the_graph_that_was_used_longest_ago_goes(made):
    """Four are kept."""
    for rows in (1, 2, 3, 4, 1, 5, 1, 2):
        made.network(torch.ones(rows, 3))
    assert 6 == Recorded.made
    assert 4 == len(made.graph._graphs)


@torch.no_grad()
def test_what_is_watched_runs_eagerly(made):
    """Hooks, dispatch modes, gradients, another step tensor; afterwards the graph is used again."""
    x = torch.ones(2, 3)
    made.network(x)
    graph = next(iter(made.graph._graphs.values()))
    replays, before = [], made.network.calls
    graph.replay = lambda leaves, executed: replays.append(leaves)
    handle = made.network.inner.register_forward_hook(lambda *_: None)
    made.network(x)
    handle.remove()
    with FlopCounterMode(display=False):
        made.network(x)
    with torch.enable_grad():
        made.network(x)
    index, made.step.index = made.step.index, torch.zeros(2, dtype=torch.int64)
    made.network(x)
    made.step.index = index
    assert [] == replays
    assert 4 == made.network.calls - before
    made.network(x)
    assert 1 == len(replays)


@torch.no_grad()
def test_single_layers_are_prepared_when_somebody_watches():
    """Once, and not before."""
    prepared = []
    network = Network({})
    StepGraph(
        network,
        StepCursor("cpu"),
        {},
        device=torch.device("cpu"),
        refusal="a test",
        prepare=lambda: prepared.append(network.calls),
    ).install()
    network(torch.ones(1))
    network.inner.register_forward_pre_hook(lambda *_: None)
    network(torch.ones(1))
    network(torch.ones(1))
    assert [1] == prepared


@torch.no_grad()
def test_without_a_gpu_the_call_is_eager_and_the_reason_recorded():
    """What cannot be captured is not tried twice, and stops nothing."""
    executed: dict[str, int] = {}
    network = Network(executed)
    graph = StepGraph(network, StepCursor("cpu"), executed, device=torch.device("cpu"))
    graph.install()
    for _ in range(3):
        assert torch.equal(torch.ones(2), network(torch.ones(2))[0])
    assert (3, {"kernel": 6}) == (network.calls, executed)
    assert 0 == graph.facts["graphs"]
    assert graph.facts["reason"]


@torch.no_grad()
def test_hooks_of_the_network_itself_run_beside_its_graph(made):
    """A pre-hook may compute what a text gives; where that lies elsewhere, the graphs are anew."""
    texts = []
    made.network.forward = made.graph._call
    graph = StepGraph(
        made.network,
        made.step,
        made.executed,
        device=torch.device("cpu"),
        version=lambda: len(texts[-1]),
    )
    graph.install()
    made.network.register_forward_pre_hook(
        lambda _, args, kwargs: texts.append(kwargs["added"]["text"]), with_kwargs=True
    )
    for value in (torch.zeros(2, 3), torch.ones(2, 3), torch.zeros(1, 3), torch.ones(1, 3)):
        made.network(torch.ones(2, 3), added={"text": value})
    assert [0.0, 1.0, 0.0, 1.0] == [float(text[0, 0]) for text in texts]
    assert (2, 1) == (graph.facts["graphs"], len(graph._graphs))


def predictions(loaded, lowered, images=2, steps=range(4)):
    """Guided predictions at each step, and what one call counts."""
    x = noise(0, "graph", range(images), loaded.model.latent_shape, device=loaded.device)
    condition = loaded.model.conditions(range(images), device=loaded.device)
    found = []
    for index in steps:
        lowered.step.set(index)
        lowered.executed.clear()
        t = timestep_tensor(loaded.sampler.timesteps[index], images, loaded.device)
        found.append(guided_prediction(loaded.model, lowered.network, x, t, condition).clone())
    return found, dict(lowered.executed)


@pytest.mark.gpu
@pytest.mark.parametrize("weights", ["int8", "packed"])
def test_replays_are_the_eager_calls_at_every_step(weights):
    """Tables per step are read at the step of the replay; batches come and go; counts agree."""
    loaded = load_tiny(device="cuda")
    state = tiny_state(loaded, Scheme(wbits=4, abits=8))
    eager = CudaBackend(batch=4, graph=False, weights=weights).lower(loaded, state)
    replayed = CudaBackend(batch=4, weights=weights).lower(loaded, state)
    for images in (2, 4, 1, 3, 5, 2):
        expected, counts = predictions(loaded, eager, images)
        found, counted = predictions(loaded, replayed, images)
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
        assert counts == counted
    assert replayed.details["graph"]["reason"] is None
    assert 6 == replayed.details["graph"]["graphs"]
    assert 0 == eager.details["graph"]["graphs"]


@pytest.mark.gpu
def test_watching_and_foreign_captures_leave_the_graph_out():
    """Hooks see every layer; a capture of somebody else's holds the kernels themselves."""
    loaded = load_tiny(device="cuda")
    state = tiny_state(loaded, Scheme(wbits=8, abits=8))
    lowered = CudaBackend(batch=2).lower(loaded, state)
    expected, _ = predictions(loaded, lowered)
    with watched_layers(loaded, state, lowered) as watch:
        watched, _ = predictions(loaded, lowered)
    assert len(state.layers) == len(watch.checks)
    graphs = lowered.details["graph"]["graphs"]
    x = noise(0, "graph", range(2), loaded.model.latent_shape, device="cuda")
    t = timestep_tensor(loaded.sampler.timesteps[3], 2, "cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad():
        loaded.model.predict(lowered.network, x, t, {})
        with torch.cuda.graph(graph):
            found = loaded.model.predict(lowered.network, x, t, {})
    lowered.step.set(3)
    graph.replay()
    assert torch.equal(expected[3], found)
    assert all(torch.equal(a, b) for a, b in zip(expected, watched, strict=True))
    assert graphs == lowered.details["graph"]["graphs"]


@pytest.mark.gpu
@torch.no_grad()
@pytest.mark.parametrize("read", ["item", "copy", "error in capture"])
def test_a_network_that_reads_on_the_host_falls_back(read):
    """No crash: the call is eager, the reason recorded, and capturing others still works."""

    class Reading(Network):
        def forward(self, x):
            (found,) = super().forward(x)
            if read == "item":
                return found * found.sum().item()
            if read == "copy":
                return found * torch.ones(3).to(x.device)
            if torch.cuda.is_current_stream_capturing():
                torch.cuda.current_stream().synchronize()
            return found

    device = torch.device("cuda")
    x = torch.ones(2, 3, device=device)
    for kind, wanted in ((Reading, 0), (Network, 1)):
        executed: dict[str, int] = {}
        network = kind(executed)
        graph = StepGraph(network, StepCursor("cuda"), executed, device=device)
        graph.install()
        stream = torch.cuda.current_stream()
        outputs = [network(x) for _ in range(3)]
        assert stream == torch.cuda.current_stream()
        assert wanted == graph.facts["graphs"], graph.facts
        assert (graph.facts["reason"] is None) == bool(wanted)
        assert {"kernel": 6} == executed
        first, *others = [out[0] if isinstance(out, tuple) else out for out in outputs]
        assert all(torch.equal(first, other) for other in others)


@pytest.mark.gpu
def test_inference_mode_and_no_grad_share_a_graph():
    """A graph that one of them captured can be replayed in the other."""
    executed: dict[str, int] = {}
    network = Network(executed)
    graph = StepGraph(network, StepCursor("cuda"), executed, device=torch.device("cuda"))
    graph.install()
    x = torch.ones(2, 3, device="cuda")
    for mode in (torch.inference_mode, torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(x, network(x)[0])
    assert (1, None) == (graph.facts["graphs"], graph.facts["reason"])
