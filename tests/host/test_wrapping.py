"""A quantizer on top of another: found by both names, made of both, refused where senseless."""

import pytest

from tfq_bench import api
from tfq_bench.errors import BrokenPlugin, SuiteError

WRAPPER = """
from tfq_bench import api


class Outer:
    def __init__(self, *, scheme, base, strength):
        self.scheme, self.base, self.strength = scheme, base, strength

    def calibration_needs(self, loaded, *, images):
        return self.base.calibration_needs(loaded, images=images)

    def quantize(self, loaded, data, **rest):
        return self.base.quantize(loaded, data, **rest)


def assets(options):
    return (
        api.Asset(name=f"strength-{options['strength']}", what="", kind="file", source="",
                  path=None, size=1, sha256="", licence=""),
    )


@api.hookimpl
def tfq_quantizers():
    yield api.QuantizerProvider(
        name="outer", summary="Changes.", factory=f"{__name__}:Outer", wraps=True,
        assets=f"{__name__}:assets",
        options=(api.Option(name="OPTION", kind="int", default=1, help="How much."),),
    )
"""
W4A8 = api.Scheme(wbits=4, abits=8)


@pytest.fixture
def table(plugin_host):
    """The host's quantizers and `outer`."""
    plugin_host.install(
        "outer", WRAPPER.replace("OPTION", "strength"), distribution="outer-dist", version="2"
    )
    return plugin_host.discover()


def test_it_is_one_quantizer_with_the_options_of_both(table):
    """Bits and policies are those of the base."""
    pair, rtn = table.get("quantizer", "outer+rtn"), table.get("quantizer", "rtn")
    assert "outer+rtn" == pair.name
    assert (rtn.wbits, rtn.abits, rtn.policies) == (pair.wbits, pair.abits, pair.policies)
    assert ["strength", *(option.name for option in rtn.options)] == [
        option.name for option in pair.options
    ]
    assert ("fp", "outer", "rtn") == table.names("quantizer")


def test_each_factory_gets_its_own_options(table):
    """The wrapper has the base, made with the same scheme; pairs may be wrapped again."""
    pair = table.get("quantizer", "outer-dist:outer+rtn")
    options = {option.name: option.default for option in pair.options}
    made = table.create(pair, scheme=W4A8, **{**options, "strength": 7, "split": True})
    assert (7, W4A8) == (made.strength, made.scheme)
    assert (True, W4A8, "RoundToNearest") == (
        made.base.split,
        made.base.scheme,
        type(made.base).__name__,
    )


def test_both_distributions_count(table):
    """Each part is known with where it comes from; the pair is known by the wrapper's."""
    pair = table.get("quantizer", "outer+rtn")
    assert "outer-dist==2" == table.distribution_of(pair)
    parts = [table.distribution_of(part).partition("==")[0] for part in pair.parts]
    assert ["outer-dist", "tfq-bench"] == parts
    options = {option.name: option.default for option in pair.options}
    assert ["strength-1"] == [asset.name for asset in table.assets(pair, options)]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("outer", r"'outer' changes what another one makes.*'outer\+rtn'"),
        ("outer+fp", "'fp' makes no quantized state"),
        ("rtn+rtn", "'rtn' changes nothing that another quantizer makes"),
        ("outer+outer", r"'outer' changes what another one makes"),
        ("outer+rtm", "no quantizer is called 'rtm'.*'rtn'"),
        ("oter+rtn", "no quantizer is called 'oter'.*'outer'"),
        ("outer+outer+rtn", "an option 'strength'"),
    ],
)
def test_pairs_that_make_no_sense_are_refused(table, name, words):
    """In words that say what to write."""
    with pytest.raises((SuiteError, BrokenPlugin), match=words):
        table.get("quantizer", name)


def test_options_of_one_name_are_refused(plugin_host):
    """A suite could not say whose it means."""
    plugin_host.install("outer", WRAPPER.replace("OPTION", "split"))
    with pytest.raises(BrokenPlugin, match="both 'outer' and 'rtn' have an option 'split'"):
        plugin_host.discover().get("quantizer", "outer+rtn")


def test_what_is_external_wraps_nothing():
    """A tool has no state of another's."""
    with pytest.raises(BrokenPlugin, match="external or wraps"):
        api.QuantizerProvider(
            name="a", summary="", factory="b:C", policies=("own",), external=True, wraps=True
        )
