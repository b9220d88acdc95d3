"""What oneDNN itself says it ran: the layers' own count could not see a fallback below them."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch
from torch import nn

from tfq_bench_cpu import kernels
from tfq_bench_cpu.backend import CpuBackend
from tfq_bench_cpu.layers import CONV2D, LINEAR


@pytest.fixture
def primitives(capfd):
    """Runs a call and returns oneDNN's log of it: `(kind, implementation, operands)` each."""

    def run(call):
        capfd.readouterr()
        with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
            call()
        lines = [line.split(",") for line in capfd.readouterr().out.splitlines()]
        return [
            (fields[5], fields[6], fields[8])
            for fields in lines
            if fields[:4] == ["onednn_verbose", "v1", "primitive", "exec"]
            and fields[5] in ("convolution", "matmul", "inner_product")
        ]

    return run


def faults(found) -> list[str]:
    """Products that ran as a reference implementation or not on unsigned by signed bytes."""
    return [
        f"{kind} {implementation} {operands}"
        for kind, implementation, operands in found
        if implementation.startswith("ref")
        or not operands.startswith("src:u8:")
        or "wei:s8:" not in operands
    ]


def byte_products(found) -> Counter:
    """How many convolutions and matrix products had 8-bit weights."""
    return Counter(kind for kind, _, operands in found if "wei:s8:" in operands)


@pytest.mark.parametrize(("wbits", "abits"), [(8, 8), (4, 8), (4, 4)])
def test_the_count_is_that_of_the_library(loaded, images, make_state, primitives, wbits, abits):
    """Each counted kernel is one fast u8*s8 product; no weight is multiplied in float."""
    lowered = CpuBackend().lower(loaded, make_state(wbits=wbits, abits=abits))
    t = torch.full((2,), 500)
    found = primitives(lambda: loaded.model.predict(lowered.network, images, t, {}))
    assert lowered.executed == Counter(use.kernel for use in lowered.kernels)
    parts = Counter(
        CONV2D if isinstance(loaded.network.get_submodule(use.layer), nn.Conv2d) else LINEAR
        for use in lowered.kernels
    )
    # One layer of the state is split: it runs one product for each half.
    expected = {"convolution": parts[CONV2D] + 1, "matmul": parts[LINEAR]}
    assert expected == byte_products(found)
    weighted = [entry for entry in found if entry[0] == "convolution" or "wei:s8:" in entry[2]]
    assert faults(weighted) == []


def test_a_layer_that_falls_back_shows_in_the_library_too(loaded, images, make_state, primitives):
    """A listed fallback leaves one int8 product out and gives a float convolution instead."""
    state = make_state()
    part = dataclasses.replace(state.layers["conv_in"].parts[0], activation=None)
    layer = dataclasses.replace(state.layers["conv_in"], parts=(part,))
    state = dataclasses.replace(state, layers={**state.layers, "conv_in": layer})
    lowered = CpuBackend().lower(loaded, state)
    t = torch.full((2,), 500)
    found = primitives(lambda: loaded.model.predict(lowered.network, images, t, {}))
    assert ["conv_in"] == [use.layer for use in lowered.kernels if use.fallback]
    (fault,) = faults([entry for entry in found if entry[0] == "convolution"])
    assert "src:f32:" in fault


def test_signed_codes_would_be_noticed(primitives):
    """The trap that these tests are for: signed activations run a reference kernel."""
    packed = kernels.pack_linear(torch.ones(16, 64, dtype=torch.int8))
    for dtype, expected in ((torch.uint8, 0), (torch.int8, 1)):
        code = torch.ones(32, 64, dtype=dtype)
        found = primitives(
            lambda code=code: kernels.linear(code, 1.0, 0, packed, torch.ones(16), None)
        )
        assert len(found) == 1
        assert expected == len(faults(found))
