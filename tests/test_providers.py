"""Providers and options refuse what is malformed, with a message that says what to write."""

import pytest

from tfq_bench import api
from tfq_bench.types import parse_options

OPTIONS = (
    api.Option(name="mode", kind="str", default="fast", choices=("fast", "exact"), help="Mode."),
    api.Option(name="steps", kind="int", default=4, minimum=1, maximum=8, help="Steps."),
    api.Option(name="rate", kind="float", default=0.5, minimum=0, help="Rate."),
    api.Option(name="deep", kind="bool", default=False, help="Deep."),
)


@pytest.mark.parametrize("name", ["", "Upper", "under_score", "-dash", "spa ce", "ü"])
def test_malformed_name_is_refused(name):
    """Names are lower-case letters, digits and hyphens."""
    with pytest.raises(api.BrokenPlugin, match="metric's name must match"):
        api.MetricProvider(name=name, summary="", factory="a:b")


@pytest.mark.parametrize("factory", ["a.b", "a.b:", ":b", "a b:c", "a:b.c"])
def test_malformed_factory_is_refused(factory):
    """A factory is `package.module:Class`."""
    with pytest.raises(api.BrokenPlugin, match=r"must look like 'package\.module:Class'"):
        api.MetricProvider(name="fine", summary="", factory=factory)


def test_malformed_assets_are_refused():
    """They are named like a factory, or not at all."""
    with pytest.raises(api.BrokenPlugin, match=r"must look like 'package\.module:function'"):
        api.MetricProvider(name="fine", summary="", factory="a:b", assets="a.b")


def test_options_are_complete_and_sorted():
    """Defaults fill what was not given; an int becomes a float; the order is that of the names."""
    parsed = parse_options(OPTIONS, {"rate": 1, "mode": "exact"}, "here")
    expected = "[('deep', False), ('mode', 'exact'), ('rate', 1.0), ('steps', 4)]"
    assert expected == str(list(parsed.items()))


def test_option_without_a_default_is_unset_or_checked():
    """None says that the suite leaves it to the factory; what is given is checked as ever."""
    option = api.Option(name="samples", kind="int", default=None, minimum=1, help="Samples.")
    assert {"samples": None} == parse_options((option,), {}, "here")
    assert {"samples": 3} == parse_options((option,), {"samples": 3}, "here")
    for value, message in ((0, "at least 1, found 0"), (None, "type int, found None")):
        with pytest.raises(api.SuiteError, match=message):
            parse_options((option,), {"samples": value}, "here")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stps": 2}, "here: unknown option 'stps'; did you mean 'steps'"),
        ({"steps": 9}, "'steps' must lie in [1, 8], found 9"),
        ({"rate": -1}, "'rate' must be at least 0, found -1"),
        ({"rate": float("nan")}, "'rate' must be a finite number, found nan"),
        ({"rate": 10**400}, "'rate' must be a finite number, found 1000"),
        ({"steps": True}, "'steps' must be of type int, found True"),
        ({"steps": "2"}, "'steps' must be of type int, found '2'"),
        ({"mode": "slow"}, "'mode' must be one of 'fast', 'exact', found 'slow'"),
        ({"deep": 1}, "'deep' must be of type bool, found 1"),
    ],
)
def test_wrong_option_says_what_was_expected_and_found(given, message):
    """Every message names the option, the expectation and the value."""
    with pytest.raises(api.SuiteError) as caught:
        parse_options(OPTIONS, given, "here")
    assert message in str(caught.value)


def test_unknown_option_of_what_has_none():
    """Where nothing can be set, the message says so; keys of the suite itself are offered too."""
    with pytest.raises(api.SuiteError, match=r"^here: unknown option 'x'; it has none\.$"):
        parse_options((), {"x": 1}, "here")
    with pytest.raises(api.SuiteError, match="did you mean 'wbits'"):
        parse_options(OPTIONS, {"wbit": 1}, "here", also=("wbits",))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (api.ModelProvider, "samplers"),
        (api.QuantizerProvider, "wbits"),
        (api.QuantizerProvider, "abits"),
        (api.QuantizerProvider, "policies"),
    ],
)
def test_a_list_whose_first_is_the_default_cannot_be_empty(kind, name):
    """A provider that leaves the default open is refused when it is described."""
    with pytest.raises(api.BrokenPlugin, match=f"{kind.kind} 'odd': {name} is empty"):
        kind(name="odd", summary="", factory="a:B", **{name: ()})


def test_an_option_that_the_host_passes_itself_is_refused():
    """An executor that asks for GPUs is given `devices`; of any other the name is its own."""
    option = api.Option(name="devices", kind="str", default="", help="Hosts of the cluster.")
    api.ExecutorProvider(name="cluster", summary="", factory="a:b", options=(option,))
    with pytest.raises(api.BrokenPlugin, match="the host passes 'devices'; rename the option"):
        api.ExecutorProvider(
            name="cluster", summary="", factory="a:b", options=(option,), gpus=True
        )
