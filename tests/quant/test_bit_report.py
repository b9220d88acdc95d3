"""Every byte of a model is counted once."""

import pytest

from tfq_bench.quant.bit_report import bit_report


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
