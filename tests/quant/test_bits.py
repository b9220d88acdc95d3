"""Codes take the bits they have, and every byte of a model is counted once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tfq_bench.errors import QuantizationError
from tfq_bench.quant.bits import bit_report, pack, packed_size, unpack


@given(data=st.data(), bits=st.integers(2, 8))
def test_packing_is_a_little_endian_bit_stream_and_comes_back(data, bits):
    """Equal to the bit stream written out in Python, for every length and width."""
    codes = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=50))
    stream = sum(code << (index * bits) for index, code in enumerate(codes))
    size = packed_size(len(codes), bits)
    packed = pack(torch.tensor(codes, dtype=torch.uint8), bits)
    assert list(stream.to_bytes(size, "little")) == packed.tolist()
    assert codes == unpack(packed, bits, (len(codes),)).tolist()


def test_two_four_bit_codes_share_a_byte_low_nibble_first():
    """And a tensor keeps its shape."""
    codes = torch.tensor([[1, 2], [15, 4]], dtype=torch.uint8)
    packed = pack(codes, 4)
    assert packed.tolist() == [0x21, 0x4F]
    assert torch.equal(codes, unpack(packed, 4, (2, 2)))


@pytest.mark.parametrize(
    ("codes", "bits", "said"),
    [
        (torch.tensor([16], dtype=torch.uint8), 4, "at most 15, found 16"),
        (torch.tensor([1]), 4, "uint8"),
        (torch.tensor([1], dtype=torch.uint8), 9, "found 9"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes, bits, said):
    """Silently cutting bits off would change weights."""
    with pytest.raises(QuantizationError, match=said):
        pack(codes, bits)


def test_packed_bytes_of_a_wrong_length_are_refused():
    """A truncated tensor is not padded with zeros."""
    with pytest.raises(QuantizationError, match="need 2 bytes"):
        unpack(torch.zeros(1, dtype=torch.uint8), 4, (3,))


def test_full_precision_has_32_bits_and_4_bytes_a_parameter(loaded):
    """Without a state nothing is packed."""
    report = bit_report(loaded.network, loaded.topology, None)
    expected = 4 * sum(p.numel() for p in loaded.network.parameters())
    assert (32.0, 0, expected) == (report.mean_weight_bits, report.packed_bytes, report.fp_bytes)
    assert report.mac_share == {(32, 32): 1.0}


def test_every_byte_is_counted_once(loaded, round_to_nearest):
    """Packed layers and the norms at 4 bytes a parameter; roles sum to the total."""
    state = round_to_nearest(4, 8)
    report = bit_report(loaded.network, loaded.topology, state)
    norms = sum(p.numel() for name, p in loaded.network.named_parameters() if "norm" in name)
    assert state.packed_bytes == report.packed_bytes
    assert 4 * norms == report.fp_bytes == report.bytes_by_role["remainder"]
    assert report.total_bytes == sum(report.bytes_by_role.values())
    # `uniform` keeps the input and output layer at 8 bits.
    ends = sum(loaded.network.get_submodule(n).weight.numel() for n in ("conv_in", "conv_out"))
    weights = sum(loaded.network.get_submodule(n).weight.numel() for n in state.layers)
    assert 4 + 4 * ends / weights == pytest.approx(report.mean_weight_bits)
    end_macs = sum(loaded.topology.layer(n).macs for n in ("conv_in", "conv_out"))
    all_macs = sum(layer.macs for layer in loaded.topology.layers)
    assert end_macs / all_macs == pytest.approx(report.mac_share[8, 8])
    assert pytest.approx(sum(report.mac_share.values())) == 1.0
