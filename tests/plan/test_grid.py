"""Bit widths and policies multiply, exclusions match, and a backend's gaps have reasons."""

from dataclasses import replace

import pytest

from tfq_bench.errors import SuiteError
from tfq_bench.plan.grid import matches, schemes, unsupported, variants
from tfq_bench.plan.suite import Entry, Exclude
from tfq_bench.providers import BackendProvider, QuantizerProvider
from tfq_bench.types import Cell, Component, Scheme

QUANTIZER = QuantizerProvider(
    name="crude",
    summary="",
    factory="a:B",
    wbits=(8, 4),
    abits=(8, 32),
    policies=("uniform", "paper"),
)
BACKEND = BackendProvider(
    name="box", summary="", factory="a:B", wbits=(4, 8), abits=(8,), devices=("cpu",)
)


def labels(**given):
    """The schemes that an entry asks for, in order."""
    entry = Entry(name="crude", given=given)
    return [(s.wbits, s.abits, s.policy) for s in schemes(entry, QUANTIZER)]


def test_defaults_are_the_quantizer_s_first():
    """What the suite leaves open is what the quantizer names first."""
    assert [(8, 8, "uniform")] == labels()


def test_lists_multiply_in_the_order_written():
    """Weights vary slowest, policies fastest; a lone value is a list of one."""
    expected = [(4, 8, "paper"), (4, 8, "uniform"), (8, 8, "paper"), (8, 8, "uniform")]
    assert expected == labels(wbits=[4, 8], abits=8, policy=["paper", "uniform"])


@pytest.mark.parametrize("bits", [0, 1, 33, -8, 3.5, 8.0, True, "8", "W3.5", [8, 0], [[8]], None])
@pytest.mark.parametrize("name", ["wbits", "abits"])
def test_impossible_bits(name, bits):
    """Bits that the quantizer does not offer are named beside those that it does."""
    with pytest.raises(SuiteError) as caught:
        labels(**{name: bits})
    offered = {"wbits": "8, 4", "abits": "8, 32"}[name]
    found = bits[-1] if isinstance(bits, list) else bits
    assert (
        f"[[quantizer]] 'crude': {name} must be among {offered} (32 is float), found {found!r}."
        == str(caught.value)
    )


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [("papr", "no policy is called 'papr'; did you mean 'paper'"), (3, "no policy is called 3")],
)
def test_unknown_policy(policy, sentence):
    """Policies that the quantizer does not have are refused with the nearest."""
    with pytest.raises(SuiteError, match=r"\[\[quantizer\]\] 'crude': ") as caught:
        labels(policy=policy)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("name", ["wbits", "abits", "policy"])
def test_empty_list(name):
    """A list without values would drop the quantizer silently, so it is refused."""
    with pytest.raises(SuiteError, match=f"'crude': {name} is an empty list"):
        labels(**{name: []})


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ({"model": "cifar*"}, True),
        ({"model": "Cifar*"}, False),
        ({"scheme": "W[46]A8", "backend": "box"}, True),
        ({"scheme": "W4A8", "backend": "simulate"}, False),
        ({"quantizer": "crude"}, True),
        ({"quantizer": "one-dist:crude"}, True),
        ({"quantizer": "other-dist:*"}, False),
    ],
)
def test_an_exclusion_matches_when_all_patterns_do(patterns, expected):
    """Patterns are shell-style and case-sensitive, on names with or without distribution."""
    cell = Cell(
        key="k",
        model=Component(name="cifar10"),
        quantizer=Component(name="one-dist:crude"),
        scheme=Scheme(wbits=4, abits=8),
        backend=Component(name="box"),
        seed=0,
    )
    assert expected == matches(Exclude(patterns=patterns, reason="r"), cell)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("ptqd+crude", True), ("ptqd+*", True), ("*+crude", True), ("crude", False), ("a:*", True)],
)
def test_a_pair_of_quantizers_is_no_other_one(pattern, expected):
    """Excluding a method does not exclude what stands on top of it, wherever both come from."""
    cell = Cell(
        key="k",
        model=Component(name="tiny"),
        quantizer=Component(name="a:ptqd+b:crude"),
        scheme=Scheme(wbits=4, abits=8),
        backend=Component(name="box"),
        seed=0,
    )
    assert expected == matches(Exclude(patterns={"quantizer": pattern}, reason="r"), cell)


@pytest.mark.parametrize(
    ("scheme", "device", "reason"),
    [
        (Scheme(wbits=4, abits=8), "cpu", None),
        (Scheme(wbits=4, abits=8), "cuda", "backend 'box' runs on cpu, not on cuda"),
        (Scheme(wbits=6, abits=8), "cpu", "backend 'box' has weights of 4, 8 bits, not 6"),
        (Scheme(wbits=8), "cpu", "backend 'box' has activations of 8 bits, not 32"),
    ],
)
def test_what_a_backend_lacks(scheme, device, reason):
    """A skip says which of device, weights and activations is not offered."""
    assert reason == unsupported(BACKEND, scheme, device)


def test_equal_names_are_told_apart_by_their_options():
    """Only where labels would be equal, and only by the options that differ."""
    scheme = Scheme(wbits=4, abits=8)

    def cell(quantizer, **options):
        return Cell(
            key=f"{quantizer}{options}",
            model=Component(name="tiny"),
            quantizer=Component(name=quantizer, options={"steps": 8, **options}),
            scheme=scheme,
            backend=Component(name="simulate"),
            seed=0,
        )

    cells = [cell("rtn", split=True), cell("rtn", split=False), cell("other", split=True)]
    assert ["split=True", "split=False", ""] == variants(cells, {})
    assert ["split=True", "", ""] == variants(cells, {"rtn.split": False})
    unset = [cell("rtn", split=None), cell("rtn", split=False)]
    assert ["", "split=False"] == variants(unset, {"rtn.split": None})
    told = replace(cells[0], variant="split=True")
    assert "tiny / rtn W4A8 [split=True] / simulate" == told.label
