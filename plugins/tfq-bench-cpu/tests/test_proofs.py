"""The self-test of a layer: what loses a sum is refused, on whatever machine this runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from tfq_bench_cpu import kernels, onednn
from tfq_bench_cpu.forms import Form
from tfq_bench_cpu.kernels import Epilogue
from tfq_bench_cpu.onednn import Geometry
from tfq_bench_cpu.proofs import exact_sums, prove_conv2d, prove_linear, worst_codes

POINT = Geometry(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)
GEOMETRIES = [
    POINT,
    Geometry(stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1),
    Geometry(stride=(2, 2), padding=(1, 1), dilation=(1, 1), groups=1),
    Geometry(stride=(2, 2), padding=(0, 0), dilation=(1, 1), groups=1),
    Geometry(stride=(1, 1), padding=(2, 2), dilation=(2, 2), groups=1),
    Geometry(stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=4),
]
PARAMETERS = [(0.031, 12), (0.07, 200), (0.05, 90)]


@pytest.fixture
def generator() -> torch.Generator:
    """The same numbers in every test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def machine(monkeypatch) -> Callable[..., None]:
    """Makes `onednn.linear` that of a machine that adds `pairs(products)` in 16 bits."""

    def make(pairs, lost=lambda sums: sums, fused=False):
        def linear(code, scale, zero_point, weight, weight_scale, bias):
            products = code.long().unsqueeze(-2) * weight.long()
            first, second = pairs(products)
            sums = (first + second).clamp(-(2**15), 2**15 - 1).sum(-1)
            sums = lost(sums - zero_point * weight.long().sum(1))
            if fused:
                y = sums.float() * (scale * weight_scale)
            else:
                y = sums.float() * scale * weight_scale
            return y if bias is None else y + bias

        monkeypatch.setattr(onednn, "pack_linear", lambda weight: weight)
        monkeypatch.setattr(onednn, "linear", linear)

    return make


def neighbours(products):
    """How x86 pairs them."""
    return products[..., 0::2], products[..., 1::2]


def distant(products):
    """How nobody expects it."""
    return products.chunk(2, -1)


def random_weights(generator, most, *shape):
    """Int8 weights of at most this size."""
    return torch.randint(-most, most + 1, shape, generator=generator, dtype=torch.int8)


def linear_form(generator, most, rows=16, weight=None):
    """What the self-test makes of a linear layer, of random weights unless they are given."""
    weight = random_weights(generator, most, 24, 32) if weight is None else weight
    scale, bias = torch.rand(24, generator=generator), torch.randn(24, generator=generator)
    return prove_linear(weight, scale, bias, PARAMETERS, rows)


@pytest.mark.parametrize("rows", [1, 16, 1000])
@pytest.mark.parametrize("known", [True, False], ids=["told so", "taken for exact"])
def test_saturating_pairs_are_never_used(generator, machine, monkeypatch, known, rows):
    """Small weights are taken as they are, large ones spread, whatever was believed before."""
    machine(neighbours)
    monkeypatch.setattr(kernels, "saturates", lambda: known)
    assert linear_form(generator, 64, rows).form is Form.PLAIN
    assert linear_form(generator, 80, rows).form is Form.PAIRS
    largest = torch.full((24, 32), 127, dtype=torch.int8)
    assert linear_form(generator, 127, rows, largest).form is Form.HALVES


def test_other_pairs_are_noticed(generator, machine, monkeypatch):
    """Where a machine pairs other channels, only the form that fits any two is exact."""
    machine(distant)
    monkeypatch.setattr(kernels, "saturates", lambda: True)
    assert linear_form(generator, 80).form is Form.HALVES


@pytest.mark.parametrize(
    "lost",
    [
        lambda sums: sums.clamp(max=2**16),
        lambda sums: sums + (sums == sums.min()),
        lambda sums: sums + (len(sums) == 1),
    ],
    ids=["large sums", "the smallest sum", "a batch of one"],
)
def test_nothing_that_loses_a_sum_is_used(generator, machine, monkeypatch, lost):
    """No form is left, so the layer has no kernel."""
    machine(neighbours, lost)
    monkeypatch.setattr(kernels, "saturates", lambda: True)
    assert linear_form(generator, 64) is None


@pytest.mark.parametrize(
    ("lost", "exact"),
    [
        (lambda sums: (sums + 2).float(), True),
        (lambda sums: (sums - 2).float(), True),
        (lambda sums: sums - 127, False),
        (lambda sums: sums.clamp(max=2**24), False),
    ],
    ids=["above", "below", "one saturated pair", "large sums"],
)
def test_float32_rounds_sums_beyond_2_to_the_24(generator, machine, monkeypatch, lost, exact):
    """By their last bit, which kernels for AMX do; what a pair of products loses is more."""
    machine(neighbours, lambda sums: torch.where(sums.abs() > 2**24, lost(sums), sums))
    monkeypatch.setattr(kernels, "saturates", lambda: False)
    weight = torch.full((24, 2048), 64, dtype=torch.int8)
    found = linear_form(generator, 64, weight=weight)
    assert (found is not None) == exact
    assert linear_form(generator, 64, weight=weight[:, :1024]) is not None
    monkeypatch.setattr(kernels, "saturates", lambda: True)
    assert linear_form(generator, 64, weight=weight) is None


def test_what_could_hide_a_saturated_pair_is_not_allowed(generator, machine, monkeypatch):
    """So many terms that roundings come near to what such a pair loses."""
    machine(neighbours, lambda sums: torch.where(sums.abs() > 2**24, sums + 16, sums))
    monkeypatch.setattr(kernels, "saturates", lambda: False)
    for terms, exact in ((10_000, True), (12_000, False)):
        weight = torch.full((24, terms), 64, dtype=torch.int8)
        assert (linear_form(generator, 64, rows=1, weight=weight) is not None) == exact


def test_scales_that_are_multiplied_first_are_applied_afterwards(generator, machine, monkeypatch):
    """A library that rounds s * s_w gives the sums times s, the rest follows in order."""
    monkeypatch.setattr(kernels, "saturates", lambda: True)
    for fused, expected in ((False, Epilogue.ALL), (True, Epilogue.SCALE)):
        machine(neighbours, fused=fused)
        assert linear_form(generator, 64).epilogue is expected


@pytest.mark.parametrize("most", [7, 31, 127])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_this_machine_has_an_exact_form(generator, geometry, most):
    """The bits of the simulation, on random codes at every step's parameters."""
    size = 1 if geometry == POINT else 3
    weight = random_weights(generator, most, 16, 32 // geometry.groups, size, size)
    scale, bias = torch.rand(16, generator=generator), torch.randn(16, generator=generator)
    packed = prove_conv2d(weight, scale, bias, geometry, PARAMETERS, 64)
    code = torch.randint(0, 256, (3, 32, 9, 9), generator=generator, dtype=torch.uint8)
    for s, z in PARAMETERS:
        centred = code.double() - z
        sums = F.conv2d(
            centred,
            weight.double(),
            None,
            geometry.stride,
            geometry.padding,
            geometry.dilation,
            geometry.groups,
        )
        expected = sums.float() * s * scale.view(-1, 1, 1) + bias.view(-1, 1, 1)
        found = kernels.conv2d(code, s, z, packed, scale, bias, geometry)
        assert torch.equal(expected, found)


@pytest.mark.parametrize("side", [1, 2, 5, 16])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_worst_inputs_are_there(generator, geometry, side):
    """Both extremes of each chosen output's sums are reached, in windows that lie inside."""
    size = 1 if geometry == POINT else 3
    weight = random_weights(generator, 127, 24, 32 // geometry.groups, size, size)
    code, outputs = worst_codes(weight, geometry, side)
    sums = exact_sums(code, 0, weight, outputs, geometry).transpose(0, 1).flatten(1)
    flat = weight[outputs].flatten(1).double()
    assert torch.equal(255 * flat.clamp(min=0).sum(1), sums.amax(1))
    assert torch.equal(255 * flat.clamp(max=0).sum(1), sums.amin(1))
    positive = weight.flatten(1).long().clamp(min=0).sum(1)
    assert int(positive.argmax()) in outputs.tolist()
    assert code.is_contiguous(memory_format=torch.channels_last)
