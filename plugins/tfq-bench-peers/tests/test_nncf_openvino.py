"""OpenVINO with NNCF keeps the contract, and says what it really ran."""

import pytest
import torch

from tfq_bench.api import LoweringError, Scheme
from tfq_bench.testing.contracts import ContestantContract
from tfq_bench.testing.tiny import load_tiny
from tfq_bench_peers import nncf_openvino
from tfq_bench_peers.network_call import NetworkCall
from tfq_bench_peers.nncf_openvino import NncfOpenVino

SCHEME = Scheme(wbits=8, abits=8, policy="own")
OPTIONS = {"samples": 4, "overflow_fix": "auto", "model_type": "transformer", "precision": "f32"}


class TestNncfOpenVino(ContestantContract):
    """The contract of contestants, with the options of the provider."""

    def make(self, scheme):
        return NncfOpenVino(scheme=scheme, **OPTIONS)

    @pytest.mark.parametrize("saturating", [False, True])
    def test_bits_are_those_of_the_stored_codes(self, saturating, tmp_path, monkeypatch):
        """NNCF's fix for sums that saturate is 7 bits, and every layer and a remark say so."""
        monkeypatch.setattr(nncf_openvino, "saturates", lambda: saturating)
        loaded = self.load()
        lowered = self._lowered(loaded, SCHEME, tmp_path / "product")
        assert {7 if saturating else 8} == {use.wbits for use in lowered.kernels}
        assert saturating == any("really have 7 bits" in one for one in lowered.details["remarks"])
        assert [layer.name for layer in loaded.topology.layers] == [
            use.layer for use in lowered.kernels
        ]
        assert {None} == {use.fallback for use in lowered.kernels}

    def test_any_number_of_rows(self, tmp_path):
        """The graph is compiled for each; rows do not depend on their neighbours."""
        loaded = self.load()
        network = self._lowered(loaded, SCHEME, tmp_path / "product").network
        x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        t = torch.full((5,), 251)
        together = network(x, t)
        apart = torch.cat([network(x[:2], t[:2]), network(x[2:], t[2:])])
        torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)

    def test_saturation_that_is_left_is_told(self, tmp_path, monkeypatch):
        """Who turns the fix off where sums saturate reads it in the row."""
        monkeypatch.setattr(nncf_openvino, "saturates", lambda: True)
        contestant = NncfOpenVino(scheme=SCHEME, **{**OPTIONS, "overflow_fix": "disable"})
        assert any("its overflow fix is off" in one for one in contestant._remarks([]))


def test_layer_that_was_not_compiled_is_no_kernel():
    """What is in the quantized graph and not in the compiled one is told, not left out."""
    layer = load_tiny().topology.layers[0]
    use = nncf_openvino._use(layer, 127, None)
    assert (8, 32) == (use.wbits, use.abits)
    assert use.fallback == "no product of this layer is in the compiled graph"


def test_gpu_is_refused():
    """OpenVINO is here for the CPU."""
    with pytest.raises(LoweringError, match="runs on the CPU, the suite asks for cuda"):
        NncfOpenVino(scheme=SCHEME, **OPTIONS).check(device="cuda")


def test_model_in_16_bits_is_refused(tmp_path):
    """A sentence, before anything is converted."""
    loaded = load_tiny()
    loaded.model.dtype = torch.bfloat16
    with pytest.raises(LoweringError, match=r"expected a model of torch\.float32, found"):
        NncfOpenVino(scheme=SCHEME, **OPTIONS).quantize(
            loaded, None, generator=None, progress=None, folder=tmp_path
        )


def test_other_arguments_are_refused():
    """A graph takes the arguments that it was recorded with."""
    call = NetworkCall(load_tiny())
    assert [(1, 3, 8, 8), (1,)] == [tuple(tensor.shape) for tensor in call.inputs]
    with pytest.raises(LoweringError, match="other arguments than when it was recorded"):
        call.tensors((torch.zeros(1),), {"more": 1})
