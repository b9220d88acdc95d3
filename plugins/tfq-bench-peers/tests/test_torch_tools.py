"""Tools on top of torch keep the contract; what they really multiply is seen."""

from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tfq_bench.api import LoweringError, Scheme
from tfq_bench.testing.contracts import ContestantContract
from tfq_bench.testing.tiny import load_tiny
from tfq_bench_peers import torchao_linear
from tfq_bench_peers.quanto_static import Quanto
from tfq_bench_peers.tensor_store import read_into, write
from tfq_bench_peers.torch_layers import kernels_of
from tfq_bench_peers.torchao_linear import TorchAo

SCHEMES = (Scheme(wbits=8, abits=8, policy="own"), Scheme(wbits=8, abits=32, policy="own"))
INT8, MM = "aten::_int_mm int8 x int8", "aten::mm float32 x float32"
CONVOLUTION = "aten::convolution float32 x float32"


def kernels(lowered):
    """How many layers run on each kernel."""
    return Counter(use.kernel for use in lowered.kernels)


class TestTorchAo(ContestantContract):
    """The contract of contestants, with the options of the provider."""

    schemes = SCHEMES

    def make(self, scheme):
        return TorchAo(scheme=scheme, dtype="int8")

    def test_linear_layers_multiply_bytes(self, tmp_path):
        """Dynamic int8 is real, weights alone are taken apart; convolutions are not touched."""
        dynamic, weights = (
            self._lowered(self.load(), scheme, tmp_path / str(number))
            for number, scheme in enumerate(SCHEMES)
        )
        assert {INT8: 6} == kernels(dynamic)
        assert {MM: 6} == kernels(weights)
        assert {(8, 8, None)} == {(use.wbits, use.abits, use.fallback) for use in dynamic.kernels}
        assert {(8, 32)} == {(use.wbits, use.abits) for use in weights.kernels}
        assert all(use.fallback for use in weights.kernels)

    def test_network_without_linear_layers_is_refused(self):
        """Nothing to quantize is no contestant."""
        loaded = load_tiny()
        for name, module in list(loaded.network.named_modules()):
            if isinstance(module, nn.Linear):
                loaded.network.get_submodule(name).__class__ = nn.Identity
        with pytest.raises(LoweringError, match="no linear layer"):
            self.make(SCHEMES[0])._network(loaded)


class TestQuanto(ContestantContract):
    """The contract of contestants, with the options of the provider."""

    schemes = SCHEMES

    def make(self, scheme):
        return Quanto(scheme=scheme, samples=4)

    def test_convolutions_multiply_in_float(self, tmp_path):
        """Only linear layers are real int8, and only with quantized activations."""
        static, weights = (
            self._lowered(self.load(), scheme, tmp_path / str(number))
            for number, scheme in enumerate(SCHEMES)
        )
        assert {INT8: 6, CONVOLUTION: 7} == kernels(static)
        assert {MM: 6, CONVOLUTION: 7} == kernels(weights)
        assert "6 of 13 layers multiply in int8" in static.details["remarks"][0]

    def test_ranges_are_those_of_the_calibration_data(self, tmp_path):
        """Static scales of inputs are learned, not left at one."""
        self._quantize(self.load(), SCHEMES[0], tmp_path / "product")
        stored = load_file(tmp_path / "product" / "network.safetensors")
        scales = [value for name, value in stored.items() if name.endswith("qkv.input_scale")]
        assert [1] == [len(scales)]
        assert 0 < float(scales[0]) != 1


@pytest.mark.parametrize(("device", "gpu"), [("cpu", None), ("cuda", (8, 0)), ("cuda", None)])
def test_float8_needs_a_gpu_that_has_it(device, gpu, monkeypatch):
    """A sentence with what was found, instead of a product that nobody computes in float8."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: gpu)
    shown = "one of 8.0" if gpu else "none"
    with pytest.raises(LoweringError, match=f"8.9 or later, found {shown}"):
        TorchAo(scheme=SCHEMES[0], dtype="float8").check(device=device)
    TorchAo(scheme=SCHEMES[0], dtype="int8").check(device=device)


def test_float8_is_asked_for_by_rows(monkeypatch):
    """Its configuration is torchao's for activations and weights; compiler settings stay."""
    config = TorchAo(scheme=SCHEMES[0], dtype="float8")._config()
    assert "PerRow" in repr(config.granularity)
    assert not config.set_inductor_config
    weights = TorchAo(scheme=SCHEMES[1], dtype="float8")._config()
    assert "WeightOnly" in type(weights).__name__


def test_layer_that_multiplies_nothing_is_refused():
    """A list of quantized layers is held against what they do."""
    loaded = load_tiny()
    loaded.network.first.time.forward = lambda x: torch.zeros(len(x), 16)
    with pytest.raises(LoweringError, match=r"'first\.time' has quantized weights, and no product"):
        kernels_of(loaded, loaded.network, {"first.time": 8})


def test_stored_tensors_of_another_network_are_refused(tmp_path):
    """Names, shapes and types must be those that the tool makes now."""
    network = nn.Linear(3, 2)
    write(network, tmp_path)
    read_into(network, tmp_path)
    with pytest.raises(LoweringError, match="expected the tensors of this network"):
        read_into(nn.Conv2d(1, 1, 1, bias=False), tmp_path)
    path = tmp_path / "network.safetensors"
    save_file({**load_file(path), "bias": torch.zeros(3)}, path)
    with pytest.raises(LoweringError, match=r"'bias' is expected torch\.float32 \(2,\), found"):
        read_into(network, tmp_path)


def test_torchao_is_not_imported_by_its_module():
    """The module of a contestant is imported by every plan."""
    assert "quantize_" not in vars(torchao_linear)
