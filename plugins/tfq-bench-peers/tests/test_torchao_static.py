"""Torchao's static int8 keeps the contract; what each layer became is read from the graph."""

import json
import platform
import re
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from tfq_bench.api import LoweringError, Scheme
from tfq_bench.testing.contracts import ContestantContract
from tfq_bench.testing.tiny import WIDTH, TinyNetwork, load_tiny
from tfq_bench_peers import pt2e, torchao_static
from tfq_bench_peers.exported_network import exported, products, weight_scales
from tfq_bench_peers.torchao_static import TorchAoStatic

SCHEME = Scheme(wbits=8, abits=8, policy="own")
OPTIONS = {"samples": 4, "reduce_range": "auto"}
QLINEAR, QCONV = "onednn::qlinear_pointwise", "onednn::qconv_pointwise"
QCONV_SUM = "onednn::qconv2d_pointwise"
ATTENTION = {"attention.qkv": "aten::bmm", "attention.out": "aten::addmm"}


class Short(TinyNetwork):
    """One block of the tiny network: each load lowers a graph, in seconds that grow with it."""

    def forward(self, x, timestep):
        time = self.time_mlp(timestep.to(x.dtype)[:, None].expand(-1, WIDTH) / 1000)
        return self.conv_out(F.silu(self.norm_out(self.first(self.conv_in(x), time))))


class TestTorchAoStatic(ContestantContract):
    """The contract of contestants, with the options of the provider."""

    def make(self, scheme):
        return TorchAoStatic(scheme=scheme, **OPTIONS)

    def load(self):
        loaded = load_tiny()
        loaded.network.__class__ = Short
        return loaded

    @pytest.mark.parametrize("saturating", [False, True])
    def test_weights_are_stored_as_bytes(self, saturating, tmp_path, monkeypatch):
        """No float weight is left; activations have half the codes where sums saturate."""
        monkeypatch.setattr(torchao_static, "saturates", lambda: saturating)
        loaded = load_tiny()
        self._quantize(loaded, SCHEME, tmp_path / "product")
        stored = load_file(tmp_path / "product" / "network.safetensors")
        assert {torch.int8} == {one.dtype for one in stored.values() if one.dim() > 1}
        codes = sum(one.numel() for one in stored.values() if one.dtype == torch.int8)
        weights = (loaded.network.get_submodule(la.name).weight for la in loaded.topology.layers)
        assert sum(one.numel() for one in weights) == codes
        ranges = json.loads((tmp_path / "product" / "ranges.json").read_text())
        assert saturating == ranges["reduce_range"]
        largest = max(zero for _, zero in ranges["scale_and_zero_point"].values())
        assert 127 >= largest if saturating else 127 < largest


@pytest.fixture(scope="module")
def graphs():
    """The tiny network exported, and its converted graph before and after it is lowered."""
    network = exported(load_tiny())
    with torch.no_grad():
        prepared = pt2e.prepared(network.graph, reduced=True)
        prepared(*network.call.inputs)
        converted = pt2e.converted(prepared)
        lowered = pt2e.lowered(converted, network.marked())
    return SimpleNamespace(network=network, converted=converted, lowered=lowered)


def test_layers_are_found_again_in_the_lowered_graph(graphs):
    """By their own weights, although the graph's order is another: each product has its bias."""
    layers = [layer.name for layer in load_tiny().topology.layers]
    scales = weight_scales(graphs.converted, layers)
    assert sorted(layers) == sorted(scales.values())
    found = products(graphs.lowered, scales)
    assert {QLINEAR: 4, QCONV: 5, QCONV_SUM: 2, "aten::bmm": 1, "aten::addmm": 1} == Counter(
        found.values()
    )
    assert ATTENTION == {name: one for name, one in found.items() if one.startswith("aten")}
    biases = {}
    for node in graphs.lowered.graph.nodes:
        inputs = [one.target for one in node.all_input_nodes if one.op == "get_attr"]
        for layer in (scales[one] for one in inputs if one in scales):
            biases[layer] = [one for one in inputs if str(one).endswith("bias")]
    for name in set(layers) - set(ATTENTION):
        assert [f"network.{name}.bias"] == biases[name]


def test_one_graph_takes_any_number_of_rows(graphs):
    """It is lowered once; rows do not depend on their neighbours."""
    assert ((0,), (0,)) == graphs.network.rows
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.full((5,), 251)
    run = graphs.lowered.forward
    with torch.no_grad():
        (together,) = run(x, t)
        apart = torch.cat([run(x[:1], t[:1])[0], run(x[1:], t[1:])[0]])
    assert together.shape == x.shape
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


def test_layer_that_the_model_does_not_know_is_not_listed(graphs):
    """Only layers that the model's topology has."""
    found = weight_scales(graphs.converted, ["conv_in", "no.such"])
    assert ["conv_in"] == list(found.values())


def test_use_says_what_a_product_is():
    """Int8 with the bits of its codes; float with the reason; nothing found is told too."""
    layer = load_tiny().topology.layers[0]
    low, high, none = (torchao_static._use(layer, one, 7) for one in (QCONV, "aten::bmm", None))
    assert (f"{QCONV} uint8 x int8", 8, 7, None) == (low.kernel, low.wbits, low.abits, low.fallback)
    assert ("aten::bmm float32 x float32", 8, 32) == (high.kernel, high.wbits, high.abits)
    assert "no int8 form" in high.fallback
    assert none.fallback == "no product of this layer is in the lowered graph"


@pytest.mark.parametrize(
    ("reduced", "saturating", "said"),
    [
        (True, True, "really have 7 bits, not 8: .* saturate on this processor"),
        (True, False, "really have 7 bits, not 8: .* the suite asks for it"),
        (False, True, "saturate on this processor, and 'reduce_range' is off"),
        (False, False, None),
    ],
)
def test_remarks_say_what_saturation_costs(reduced, saturating, said, monkeypatch):
    """Seven bits, or sums that are lost; who turns it off where they saturate reads it."""
    monkeypatch.setattr(torchao_static, "saturates", lambda: saturating)
    _, *remarks = torchao_static._remarks((), reduced=reduced)
    assert [True] * bool(said) == [bool(re.search(said, one)) for one in remarks]


def test_ranges_of_another_graph_are_refused(tmp_path):
    """Observers must be those that torchao makes now."""
    network = nn.Module()
    network.one = nn.Module()
    network.one.qscheme = torch.per_tensor_affine
    with pytest.raises(LoweringError, match=r"expected the ranges of this graph.*\['one', 'two'\]"):
        pt2e.restore(network, {"two": [1.0, 0]}, tmp_path)


def test_other_machines_are_refused(monkeypatch):
    """The products are oneDNN's, on x86."""
    made = TorchAoStatic(scheme=SCHEME, **OPTIONS)
    with pytest.raises(LoweringError, match="runs on the CPU; the suite asks for cuda"):
        made.check(device="cuda")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(LoweringError, match="needs an x86-64 processor, found 'aarch64'"):
        made.check(device="cpu")


def test_model_in_16_bits_is_refused(tmp_path):
    """A sentence, before anything is exported."""
    loaded = load_tiny()
    loaded.model.dtype = torch.bfloat16
    with pytest.raises(LoweringError, match=r"expected a model of torch\.float32, found"):
        TorchAoStatic(scheme=SCHEME, **OPTIONS).quantize(
            loaded, None, generator=None, progress=None, folder=tmp_path
        )
