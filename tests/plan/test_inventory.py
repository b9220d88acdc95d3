"""Which assets there are, and what a suite lacks."""

import pytest

from tfq_bench.errors import AssetError, BrokenPlugin
from tfq_bench.plan.inventory import known_assets, suite_assets
from tfq_bench.plan.suite import Entry

BUILTIN = ("inception-2015-12-05.pt",)
SLAB = """
from tfq_bench import api


def assets(options):
    return (api.Asset(name="slab.bin", what="", kind="file", source="", path=None),)


class Slab:
    def check(self, *, device):
        raise api.LoweringError("no slab.")


@api.hookimpl
def tfq_backends():
    yield api.BackendProvider(
        name="slab",
        summary="",
        factory=f"{__name__}:Slab",
        assets=f"{__name__}:assets",
        wbits=(8, 4),
    )
"""
SHARP = (Entry(name="sharp", given={}),)


def place(folder, content):
    """Puts the file of `sharp` where `fetch` would."""
    folder.mkdir(exist_ok=True)
    (folder / "weights.bin").write_bytes(content)


def test_every_choice_of_an_option_is_looked_at(plugin_host, asset_plugin):
    """What only another choice needs is listed too, once, with all that need it."""
    asset_plugin(default="none")
    found = known_assets(plugin_host.discover())
    assert (*BUILTIN, "weights.bin") == tuple(asset.name for asset in found)
    users = next(users for asset, users in found.items() if asset.name == BUILTIN[0])
    assert users == tuple(
        f"metric '{name}'"
        for name in ("frechet", "kernel-distance", "inception-score", "precision-recall")
    )


def test_a_plugin_that_cannot_say_stops_nobody(plugin_host, asset_plugin, caplog):
    """Its fault is told; a suite that uses it is refused."""
    asset_plugin(more=("broken",))
    assert set(BUILTIN) <= {asset.name for asset in known_assets(plugin_host.discover())}
    assert "raised ZeroDivisionError" in caplog.text


def test_a_suite_that_uses_a_broken_function_is_refused(small_plan, asset_plugin):
    """With the plugin and the cause."""
    asset_plugin(more=("broken",))
    with pytest.raises(BrokenPlugin, match=r"plugin 'sharp'.*raised ZeroDivisionError"):
        small_plan(metrics=(Entry(name="sharp", given={"kind": "broken"}),))


def test_all_that_is_missing_is_told_at_once(small_plan, asset_plugin):
    """What it is, what needs it, its size and licence, and one command for all."""
    asset_plugin()
    metrics = (*SHARP, Entry(name="frechet", given={"extractor": "inception"}))
    with pytest.raises(AssetError) as caught:
        small_plan(metrics=metrics)
    lines = str(caught.value).splitlines()
    assert "suite 'small' needs what is not on this machine" in lines[0]
    assert lines[1].startswith("weights.bin: the sharp weights (http://127.0.0.1:")
    assert lines[1].endswith("size 11 B, licence MIT), for metric 'sharp'. Ask the author.")
    assert "inception-2015-12-05.pt" in lines[2]
    assert (
        "Fetch it with 'tfq-bench assets fetch weights.bin inception-2015-12-05.pt'." == (lines[3])
    )


def test_an_optional_backend_is_not_needed(plugin_host, small_plan):
    """Its cells are left out when it lacks something."""
    plugin_host.install("slab", SLAB, distribution="slab-dist")
    with pytest.raises(AssetError, match=r"slab\.bin"):
        small_plan(backends=(Entry(name="slab", given={}),))
    plan = small_plan(backends=(Entry(name="slab", given={"optional": True}, optional=True),))
    assert "no slab." in {planned.skip for planned in plan.cells}


def test_nothing_is_missing_once_it_is_there(small_plan, asset_plugin, asset_folder):
    """The plan is made of the bytes that were pinned, and of no others."""
    place(asset_folder, asset_plugin())
    assert small_plan(metrics=SHARP).runnable()
    place(asset_folder, b"some others")
    with pytest.raises(AssetError, match=r"is not the sharp weights: expected the SHA-256"):
        small_plan(metrics=SHARP)


def test_a_file_that_nobody_pinned_counts_by_its_content(small_plan, asset_plugin, asset_folder):
    """Results of another file are not taken for finished."""
    place(asset_folder, asset_plugin(sha256=""))
    one = small_plan(metrics=SHARP)
    assert one.id == small_plan(metrics=SHARP).id
    place(asset_folder, b"some others")
    other = small_plan(metrics=SHARP)
    for mine, yours in zip(one.cells, other.cells, strict=True):
        assert mine.keys.sample == yours.keys.sample
        assert mine.keys.evaluate != yours.keys.evaluate


def test_options_decide_what_a_suite_needs(plugin_host, asset_plugin, tmp_path):
    """No more than the components it names, with the options it gives."""
    from tfq_bench.plan.suite import parse_suite

    asset_plugin()
    text = "schema = 1\nsuite.name = 's'\nmetric = [{{name = 'sharp', kind = '{}'}}]\n"
    more = "model = [{name = 'tiny'}]\nquantizer = [{name = 'fp'}]\n"
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    for kind, names in (("file", ["weights.bin"]), ("none", [])):
        spec = parse_suite(text.format(kind) + more, "s", tmp_path)
        found = suite_assets(spec, plugin_host.discover())
        assert names == [asset.name for asset in found]
