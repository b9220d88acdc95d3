"""The entry point: light, and pointing at something that exists."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tfq_bench.api import Scheme, parse_options
from tfq_bench_tfmq.plugin import tfq_quantizers


def test_entry_point_imports_no_torch():
    """Listing plugins must stay cheap."""
    code = "import sys, tfq_bench_tfmq.plugin; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_provider_makes_the_quantizer_with_its_options():
    """The factory takes exactly the options that the provider offers, with the same defaults."""
    (provider,) = tfq_quantizers()
    module, _, name = provider.factory.partition(":")
    factory = getattr(importlib.import_module(module), name)
    options = {option.name: option.default for option in provider.options}
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(factory).parameters.items()
        if key != "scheme"
    }
    assert options == defaults
    assert "block" == factory(scheme=Scheme(wbits=4, abits=8), **options).maintenance


def test_what_is_offered_exists():
    """Listing and toolkit name the same policies (`uniform` first), methods and efforts."""
    from tfq_bench_tfmq.presets import EFFORTS, METHODS, POLICIES

    (provider,) = tfq_quantizers()
    choices = {option.name: option.choices for option in provider.options}
    assert provider.policies == tuple(policy.name for policy in POLICIES)
    assert choices["method"] == tuple(METHODS)
    assert choices["preset"] == tuple(EFFORTS)


def test_suites_of_the_readme_are_valid():
    """Every option it shows exists and takes the value; the ablation has six rows that differ."""
    (provider,) = tfq_quantizers()
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    rows = []
    for text in re.findall(r"```toml\n(.*?)```", readme, re.DOTALL):
        for entry in tomllib.loads(text)["quantizer"]:
            given = {k: v for k, v in entry.items() if k not in ("name", "wbits", "abits")}
            rows.append(tuple(parse_options(provider.options, given, "README").items()))
    assert 7 == len(set(rows)) == len(rows)
