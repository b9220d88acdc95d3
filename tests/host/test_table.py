"""Discovery isolates every fault of a plugin and says it in words."""

import pytest

from tfq_bench import api
from tfq_bench.errors import (
    BrokenPlugin,
    IncompatiblePlugin,
    PluginConflict,
    PluginError,
    SuiteError,
)

METRIC = """
from tfq_bench import api

@api.hookimpl
def tfq_metrics():
    yield api.MetricProvider(name="{name}", summary="For a test.", factory="{factory}")
"""


def metric(name, factory="fractions:Fraction"):
    """Source of a plugin with one metric."""
    return METRIC.format(name=name, factory=factory)


def info(table, name):
    """The plugin called `name`."""
    return next(plugin for plugin in table.plugins if plugin.name == name)


def test_host_offers_its_own_providers_without_any_plugin(plugin_host):
    """Quantizers, backend, executors and metrics of the host need nothing installed."""
    table = plugin_host.discover()
    assert [("builtin", "ok", "")] == [(p.name, p.status, p.reason) for p in table.plugins]
    assert ("fp", "rtn") == table.names("quantizer")
    assert ("simulate",) == table.names("backend")
    assert ("inline", "process") == table.names("executor")
    assert {"frechet", "timing"} <= set(table.names("metric"))


def test_installed_plugin_is_offered_with_its_distribution(plugin_host):
    """A provider is found by name, and its distribution and version are known."""
    plugin_host.install("mine", metric("sharpness"), distribution="my-dist", version="2.5")
    table = plugin_host.discover()
    provider = table.get("metric", "sharpness")
    assert "ok" == info(table, "mine").status
    assert "my-dist==2.5" == table.distribution_of(provider)
    assert provider is table.get("metric", "my_dist:sharpness")


def test_order_is_by_distribution_and_name(plugin_host):
    """The order in which plugins were installed does not matter."""
    for name, distribution in (("b", "zeta"), ("a", "zeta"), ("c", "alpha")):
        plugin_host.install(name, metric(f"of-{name}"), distribution=distribution)
    assert ["builtin", "c", "a", "b"] == [p.name for p in plugin_host.discover().plugins]


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
    ],
)
def test_plugin_that_cannot_be_imported_breaks_nothing_else(plugin_host, source, cause):
    """Import errors, syntax errors and SystemExit become a status with the cause."""
    plugin_host.install("bad", source, distribution="bad-dist")
    plugin_host.install("good", metric("sharpness"), distribution="good-dist")
    table = plugin_host.discover()
    assert "broken" == info(table, "bad").status
    assert cause in info(table, "bad").reason
    assert "sharpness" in table.names("metric")


def test_every_unknown_hook_is_reported_with_a_suggestion(plugin_host):
    """Each that does not exist gives a suggestion; the correct hook still works."""
    wrong = "\n@api.hookimpl\ndef tfq_quantisers():\n    return []\n"
    wrong += "\n@api.hookimpl\ndef tfq_cell_finished(cell):\n    pass\n"
    plugin_host.install("typo", metric("sharpness") + wrong)
    table = plugin_host.discover()
    assert "unknown-hook" == info(table, "typo").status
    reason = info(table, "typo").reason
    assert "no hook 'tfq_quantisers'; did you mean 'tfq_quantizers'" in reason
    assert "no hook 'tfq_cell_finished'; did you mean 'tfq_backends' or" in reason
    assert "sharpness" in table.names("metric")


def test_hook_without_the_marker_is_reported(plugin_host):
    """A function that looks like a hook but would never be called is a fault."""
    plugin_host.install("unmarked", "def tfq_metrics():\n    return []\n")
    plugin = info(plugin_host.discover(), "unmarked")
    assert "broken" == plugin.status
    assert "tfq_metrics is not marked with @api.hookimpl" in plugin.reason


def test_hook_with_an_argument_that_does_not_exist_is_broken(plugin_host):
    """A signature that the host cannot call is told before it is called."""
    source = "from tfq_bench import api\n@api.hookimpl\ndef tfq_metrics(sell):\n    pass\n"
    plugin_host.install("args", source)
    plugin = info(plugin_host.discover(), "args")
    assert "broken" == plugin.status
    assert "sell" in plugin.reason


def test_provider_of_another_api_names_both_numbers(plugin_host):
    """The user learns which side to upgrade, and naming the provider repeats it."""
    source = metric("future").replace('name="future"', 'name="future", api=2')
    plugin_host.install("future", source, distribution="future-dist")
    table = plugin_host.discover()
    assert "incompatible" == info(table, "future").status
    assert "API 2, this host has API 1. Upgrade tfq-bench." in info(table, "future").reason
    with pytest.raises(IncompatiblePlugin, match=r"future-dist 1\.0.*API 2.*API 1"):
        table.get("metric", "future")


def test_same_name_from_two_distributions_is_a_conflict(plugin_host):
    """The bare name is refused naming both; `distribution:name` chooses."""
    plugin_host.install("one", metric("sharpness"), distribution="one-dist", version="1.1")
    plugin_host.install("two", metric("sharpness"), distribution="two-dist", version="2.2")
    table = plugin_host.discover()
    assert "conflict" == info(table, "one").status == info(table, "two").status
    with pytest.raises(PluginConflict, match=r"one-dist 1\.1 and two-dist 2\.2.*'one-dist:sharp"):
        table.get("metric", "sharpness")
    chosen = table.get("metric", "two-dist:sharpness")
    assert "two-dist==2.2" == table.distribution_of(chosen)
    assert "sharpness" not in table.alone("metric")
    assert "bits" == table.alone("metric")["bits"].name


def test_equal_entry_point_names_of_two_distributions_both_load(plugin_host):
    """The name of an entry point need not be unique, only those of providers."""
    plugin_host.install("same", metric("first"), distribution="one-dist")
    plugin_host.install("same", metric("second"), distribution="two-dist")
    assert {"first", "second"} <= set(plugin_host.discover().names("metric"))


@pytest.mark.parametrize("name", ["mine", "my-dist", "my_dist"])
def test_blocked_plugin_is_not_imported(plugin_host, name):
    """Blocking goes by entry point or by distribution."""
    plugin_host.install("mine", "raise RuntimeError", distribution="my-dist")
    table = plugin_host.discover(block=[name])
    assert "blocked" == info(table, "mine").status
    assert "ok" == info(table, "builtin").status


def test_nothing_installed_is_looked_at_when_all_is_blocked(plugin_host):
    """`*` spares the host's own; whoever misses something is told why."""
    plugin_host.install("mine", metric("sharpness"), distribution="my-dist")
    table = plugin_host.discover(block=["*"])
    assert ["builtin"] == [plugin.name for plugin in table.plugins]
    with pytest.raises(SuiteError, match="left out, as --no-plugins"):
        table.get("metric", "sharpness")


def test_blocking_by_environment(plugin_host, monkeypatch):
    """TFQ_BENCH_BLOCK takes several names."""
    plugin_host.install("mine", metric("sharpness"))
    plugin_host.install("yours", metric("softness"))
    monkeypatch.setenv("TFQ_BENCH_BLOCK", "mine, yours")
    statuses = [plugin.status for plugin in plugin_host.discover().plugins]
    assert ["ok", "blocked", "blocked"] == statuses


def test_blocking_an_unknown_name_is_told(plugin_host, caplog):
    """A misspelt name to block is answered with the nearest one."""
    plugin_host.discover(block=["builtn"])
    assert "did you mean 'builtin'" in caplog.text


def test_invalid_name_of_a_provider_breaks_its_hook_only(plugin_host):
    """Providers before the fault and other hooks stay usable."""
    source = metric("sharpness") + (
        '    yield api.MetricProvider(name="Not Good", summary="", factory="a:b")\n'
    )
    plugin_host.install("mixed", source)
    table = plugin_host.discover()
    assert "broken" == info(table, "mixed").status
    assert "'Not Good'" in info(table, "mixed").reason
    assert "sharpness" in table.names("metric")


def test_provider_of_the_wrong_kind_is_broken(plugin_host):
    """A metric returned as a model is told with both types."""
    plugin_host.install("swap", metric("sharpness").replace("tfq_metrics", "tfq_models"))
    table = plugin_host.discover()
    assert "must return ModelProvider objects, found MetricProvider" in info(table, "swap").reason
    assert "sharpness" not in table.names("metric")


def test_default_outside_the_choices_is_broken(plugin_host):
    """An option whose default it would itself refuse is a fault of the plugin."""
    option = 'api.Option(name="k", kind="int", default=0, minimum=1, help="")'
    plugin_host.install(
        "opt", metric("sharpness").replace("summary=", f"options=({option},), summary=")
    )
    table = plugin_host.discover()
    with pytest.raises(BrokenPlugin, match=r"option 'k' must be at least 1, found 0"):
        table.get("metric", "sharpness")


def test_hook_that_raises_is_broken(plugin_host):
    """An exception in a registration hook reaches nobody but the status."""
    source = "from tfq_bench import api\n@api.hookimpl\ndef tfq_models():\n    return 1 / 0\n"
    plugin_host.install("raising", source)
    plugin = info(plugin_host.discover(), "raising")
    assert "broken" == plugin.status
    assert "tfq_models failed: ZeroDivisionError" in plugin.reason


def test_strict_mode_refuses_any_fault(plugin_host, monkeypatch):
    """TFQ_BENCH_STRICT_PLUGINS turns a status into an error, but not what was blocked."""
    plugin_host.install("bad", "raise RuntimeError('no')", distribution="bad-dist")
    monkeypatch.setenv("TFQ_BENCH_STRICT_PLUGINS", "1")
    with pytest.raises(BrokenPlugin, match=r"'bad' \(bad-dist 1\.0\) is broken"):
        plugin_host.discover()
    assert "blocked" == info(plugin_host.discover(block=["bad"]), "bad").status


def test_unknown_name_offers_the_nearest_and_the_faulty_plugins(plugin_host):
    """Who asks for something of a broken plugin is told that it is broken, and why."""
    plugin_host.install("bad", "import no_such_module", distribution="bad-dist")
    with pytest.raises(SuiteError) as caught:
        plugin_host.discover().get("quantizer", "rtm")
    assert "no quantizer is called 'rtm'; did you mean 'rtn'" in str(caught.value)
    assert "'bad' (bad-dist 1.0) is broken: Importing" in str(caught.value)


def test_create_imports_the_factory_when_it_is_used(plugin_host):
    """The factory gets the keywords; before that its module need not exist."""
    plugin_host.install("mine", metric("half"))
    plugin_host.install("late", metric("late", factory="no_such_module:Thing"))
    table = plugin_host.discover()
    assert 0.5 == table.create(table.get("metric", "half"), numerator=1, denominator=2)
    with pytest.raises(BrokenPlugin, match=r"plugin 'late' \(dist 1\.0\): cannot import no_such"):
        table.create(table.get("metric", "late"))


def test_create_names_the_plugin_when_the_factory_fails(plugin_host):
    """A missing attribute and an exception both become BrokenPlugin with plugin and cause."""
    plugin_host.install("mine", metric("half"))
    plugin_host.install("lost", metric("lost", factory="fractions:Fractoin"))
    table = plugin_host.discover()
    with pytest.raises(BrokenPlugin, match=r"plugin 'mine'.*raised ZeroDivisionError") as caught:
        table.create(table.get("metric", "half"), numerator=1, denominator=0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(BrokenPlugin, match="did you mean 'Fraction'"):
        table.create(table.get("metric", "lost"))


def test_create_passes_on_what_the_factory_says_itself(plugin_host):
    """A TfqError of the factory is meant for the user and is not wrapped."""
    source = metric("asset", factory="throwaway_0_asset:make") + (
        "\ndef make():\n    raise api.AssetError('weights are missing')\n"
    )
    plugin_host.install("asset", source)
    table = plugin_host.discover()
    with pytest.raises(api.AssetError, match=r"^weights are missing$"):
        table.create(table.get("metric", "asset"))


def test_assets_are_asked_for_with_the_options(plugin_host, asset_plugin):
    """The plugin's function decides; a provider that names none has none."""
    asset_plugin()
    table = plugin_host.discover()
    provider = table.get("metric", "sharp")
    assert ["weights.bin"] == [a.name for a in table.assets(provider, {"kind": "file"})]
    assert () == table.assets(provider, {"kind": "none"})
    assert () == table.assets(table.get("metric", "bits"), {})


@pytest.mark.parametrize("found", ["[]", "('weights.bin',)", "None"])
def test_assets_of_another_type_are_refused(plugin_host, found):
    """The message names the plugin, the function and what it returned."""
    source = metric("half") + f"\ndef assets(options):\n    return {found}\n"
    source = source.replace('name="half"', 'name="half", assets=f"{__name__}:assets"')
    plugin_host.install("mine", source)
    table = plugin_host.discover()
    with pytest.raises(BrokenPlugin, match=r"plugin 'mine'.*must return a tuple of Asset objects"):
        table.assets(table.get("metric", "half"), {})


def test_provider_of_another_table_is_refused(plugin_host):
    """A provider that no plugin of the table offers has no distribution."""
    stranger = api.MetricProvider(name="stranger", summary="", factory="a:b")
    with pytest.raises(PluginError, match="'stranger' does not come from this table"):
        plugin_host.discover().distribution_of(stranger)


def test_extra_modules_are_plugins_without_being_installed(plugin_host):
    """A module named in `extra` is treated like an entry point."""
    table = plugin_host.discover(extra=["tfq_bench.testing.tiny_plugin"])
    assert ("tiny",) == table.names("model")
