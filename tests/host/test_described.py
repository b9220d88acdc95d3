"""Providers cross a process border as plain data and come back equal, or not at all."""

import json
from dataclasses import fields

import pytest

from tfq_bench import api
from tfq_bench.errors import BrokenPlugin
from tfq_bench.host import builtin
from tfq_bench.host.described import copied, from_data, option_fault, to_data
from tfq_bench.host.hookspecs import REGISTRATIONS

BUILT_IN = [
    (hook, provider)
    for hook in REGISTRATIONS
    if hasattr(builtin, hook)
    for provider in getattr(builtin, hook)()
]


@pytest.mark.parametrize(
    ("hook", "provider"), BUILT_IN, ids=[f"{p.kind}-{p.name}" for _, p in BUILT_IN]
)
def test_what_is_built_in_comes_back_equal(hook, provider):
    """Through JSON, with every field and option."""
    again = from_data(json.loads(json.dumps(to_data(copied(provider, REGISTRATIONS[hook])))))
    assert provider == again
    assert type(provider) is type(again)


@pytest.mark.parametrize("wanted", REGISTRATIONS.values(), ids=REGISTRATIONS)
def test_every_field_of_every_kind_is_known(wanted):
    """A field of a new type must say how it is read before it can be offered."""
    made = copied(wanted(name="a", summary="b", factory="c:D"), wanted)
    assert {"kind", *(one.name for one in fields(wanted))} == set(to_data(made))


def test_an_unset_default_comes_back_unset():
    """Through JSON; and it is no fault that none of the choices is the default."""
    option = api.Option(name="k", kind="str", default=None, choices=("a",), help="Unset: either.")
    provider = api.MetricProvider(name="a", summary="", factory="c:D", options=(option,))
    made = copied(provider, type(provider))
    assert "" == option_fault(made)
    assert provider == from_data(json.loads(json.dumps(to_data(made))))


def test_lists_are_taken_for_tuples():
    """As authors write them; what is kept is a tuple."""
    provider = api.QuantizerProvider(name="a", summary="", factory="c:D", wbits=[4, 8], options=[])
    made = copied(provider, type(provider))
    assert ((4, 8), ()) == (made.wbits, made.options)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "no-such"},
        {"name": None},
        {"api": 1.5},
        {"options": [{}]},
        {"options": [["name"]]},
        {"wbits": 8},
        {"wbits": ["8"]},
    ],
)
def test_other_data_is_refused(change):
    """Whatever it is, it never becomes a provider."""
    provider = api.QuantizerProvider(name="a", summary="", factory="c:D")
    with pytest.raises((BrokenPlugin, KeyError, TypeError, AttributeError)):
        from_data({**to_data(provider), **change})
