"""Hooks are documented, and the host's own providers keep their promises."""

import inspect
import textwrap

import pytest

from tfq_bench import api
from tfq_bench.host import hookspecs


@pytest.mark.parametrize("name", hookspecs.REGISTRATIONS)
def test_example_in_the_docstring_is_a_valid_implementation(plugin_host, name):
    """The example of each hook, pasted into a module, is a plugin without faults."""
    doc = inspect.getdoc(getattr(hookspecs, name))  # Python 3.13 strips the indent itself
    example = textwrap.dedent(doc.split("Example::")[1])
    plugin_host.install("example", f"from tfq_bench import api\n{example}")
    plugin = next(p for p in plugin_host.discover().plugins if p.name == "example")
    assert ("ok", "") == (plugin.status, plugin.reason)
    assert plugin.providers


def test_every_hook_is_listed_once():
    """No hook can be added without saying what it must return."""
    specs = [name for name in vars(hookspecs) if name.startswith("tfq_")]
    assert sorted(hookspecs.REGISTRATIONS) == sorted(specs)


@pytest.mark.parametrize("kind", ["quantizer", "backend", "executor", "metric"])
def test_built_in_options_have_help_and_summaries(plugin_host, kind):
    """Listings and help never show an empty line."""
    table = plugin_host.discover()
    for name in table.names(kind):
        provider = table.get(kind, name)
        assert provider.summary.endswith(".")
        assert all(option.help for option in provider.options)


def test_built_in_bits(plugin_host):
    """Simulation covers every width that round to nearest can produce; fp quantizes nothing."""
    table = plugin_host.discover()
    rtn, simulate = table.get("quantizer", "rtn"), table.get("backend", "simulate")
    assert set(rtn.wbits) <= set(simulate.wbits)
    assert set(rtn.abits) <= set(simulate.abits)
    full = table.get("quantizer", "fp")
    assert ((api.FULL_PRECISION,),) * 2 == (full.wbits, full.abits)
