"""The entry point: light, and pointing at something that exists."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from dataclasses import MISSING, asdict, fields
from pathlib import Path

from tfq_bench.api import Scheme, parse_options
from tfq_bench.plan.suite import load_suite
from tfq_bench_tfmq.plugin import tfq_quantizers
from tfq_bench_tfmq.presets import settle

SCHEME = ("wbits", "abits", "policy")


def test_entry_point_imports_no_torch():
    """Listing plugins must stay cheap."""
    code = "import sys, tfq_bench_tfmq.plugin; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_provider_makes_the_quantizer_with_its_options():
    """It takes exactly the options that the provider offers, with the same defaults."""
    from tfq_bench_tfmq.presets import Settings

    (provider,) = tfq_quantizers()
    module, _, name = provider.factory.partition(":")
    factory = getattr(importlib.import_module(module), name)
    options = {option.name: option.default for option in provider.options}
    defaults = {
        one.name: None if one.default is MISSING else one.default for one in fields(Settings)
    }
    assert options == {"method": "cvpr24", "preset": "full", **defaults}
    assert factory(scheme=Scheme(wbits=4, abits=8), **options).settings == settle()


def test_what_is_given_holds_and_what_is_unset_is_the_methods_or_efforts():
    """Also 0 and False; the two roundings have a learning rate each."""
    full = settle()
    assert ("block", "static", 0) == (
        full.maintenance,
        full.activations,
        full.activation_iterations,
    )
    assert (20_000, 1e-3, 32, 256) == (full.tiar_iterations, full.tiar_lr, full.batch, full.samples)
    settings = settle(method="tpami25", preset="fast", iterations=0, tiar=False, batch=None, lr=0.5)
    assert (0, False, 32) == (settings.iterations, settings.tiar, settings.batch)
    assert (0.5, 3e-2) == (settings.lr, settings.tiar_lr)
    assert (1e-2, 0.5) == (lambda s: (s.lr, s.tiar_lr))(settle(preset="fast", tiar_lr=0.5))
    assert ("select", 250) == (settings.maintenance, settings.activation_iterations)
    assert 7 == settle(activation_iterations=7).activation_iterations
    assert 3e-2 == settle(preset="fast").tiar_lr


def test_what_is_offered_exists():
    """Listing and toolkit name the same policies (`uniform` first), methods and efforts."""
    from tfq_bench_tfmq.presets import EFFORTS, METHODS, POLICIES

    (provider,) = tfq_quantizers()
    choices = {option.name: option.choices for option in provider.options}
    assert provider.policies == tuple(policy.name for policy in POLICIES)
    assert choices["method"] == tuple(METHODS)
    assert choices["preset"] == tuple(EFFORTS)


def test_each_row_of_the_packaged_ablation_differs():
    """Every part is an option that stands alone: beside the first row it changes one setting."""
    rows = [
        {key: value for key, value in entry.given.items() if key not in SCHEME}
        for entry in load_suite("cifar10-ablation").quantizers
        if entry.name == "tfmq"
    ]
    settings = [asdict(settle(**row)) for row in rows]
    assert len(settings) == len({repr(row) for row in settings}) == 21
    alone = [
        {name: value for name, value in row.items() if value != settings[0][name]}
        for row in settings
    ]
    for changed in (
        {"tiar": True},
        {"fsc": True},
        {"maintenance": "cache"},
        {"maintenance": "select"},
        {"activations": "per-step-all"},
        {"activation_iterations": 250},
        {"bias_correction": True},
        {"weights": "minmax"},
        {"ranges": "minmax"},
        {"symmetric_activations": True},
    ):
        assert changed in alone


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
