"""Codes take the bits they have."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tfq_bench.errors import QuantizationError
from tfq_bench.quant.state.packing import pack, packed_size, unpack


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
