"""The entry point: light, and pointing at something that exists."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import fields

from tfq_bench.api import Scheme
from tfq_bench_qdiffusion.plugin import tfq_quantizers


def test_entry_point_imports_no_torch():
    """Listing plugins must stay cheap."""
    code = "import sys, tfq_bench_qdiffusion.plugin; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_provider_makes_the_quantizer_with_its_options():
    """The factory takes every option that the provider offers, at its default: the paper's."""
    (provider,) = tfq_quantizers()
    module, _, name = provider.factory.partition(":")
    factory = getattr(importlib.import_module(module), name)
    options = {option.name: option.default for option in provider.options}
    settings = factory(scheme=Scheme(wbits=4, abits=8), **options).settings
    assert (20_000, 5_000, 32) == (
        settings.iterations,
        settings.activation_iterations,
        settings.batch,
    )
    assert (20, 256, True) == (settings.steps, settings.samples, settings.split)


def test_settings_are_the_options_and_what_is_given_holds():
    """Each setting but `start` can be given, also as 0 or False; what is unset is the preset's."""
    from tfq_bench_qdiffusion.presets import Settings, settle

    (provider,) = tfq_quantizers()
    names = {option.name for option in provider.options}
    assert names - {"preset", "variant"} == {one.name for one in fields(Settings)} - {"start"}
    settings = settle(variant="sd", preset="fast", iterations=0, split=False, lr=None, samples=99)
    assert (0, False, 1e-2, 99) == (
        settings.iterations,
        settings.split,
        settings.lr,
        settings.samples,
    )
    assert (8, 250, "mse") == (settings.batch, settings.activation_iterations, settings.weights)
    assert 4 == settle(preset="quick").samples


def test_policies_and_presets_that_are_offered_exist():
    """Listing and code name the same policies, `uniform` first, and the same presets."""
    from tfq_bench_qdiffusion.presets import EFFORTS, POLICIES, VARIANTS

    (provider,) = tfq_quantizers()
    options = {option.name: option for option in provider.options}
    assert provider.policies == tuple(policy.name for policy in POLICIES)
    assert options["preset"].choices == tuple(EFFORTS)
    assert options["variant"].choices == tuple(VARIANTS)
