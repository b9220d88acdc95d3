"""The entry point: light, and pointing at something that exists."""

from __future__ import annotations

import importlib
import subprocess
import sys

from tfq_bench.api import Scheme
from tfq_bench_ptq4dm.plugin import tfq_quantizers


def test_entry_point_imports_no_torch():
    """Listing plugins must stay cheap."""
    code = "import sys, tfq_bench_ptq4dm.plugin; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_provider_makes_the_quantizer_with_its_options():
    """The factory takes every option that the provider offers, at its default."""
    (provider,) = tfq_quantizers()
    module, _, name = provider.factory.partition(":")
    factory = getattr(importlib.import_module(module), name)
    options = {option.name: option.default for option in provider.options}
    quantizer = factory(scheme=Scheme(wbits=4, abits=8), **options)
    assert (1024, "normal") == (quantizer.samples, quantizer.sampling)


def test_policies_that_are_offered_exist():
    """Listing and toolkit name the same policies, `uniform` first."""
    from tfq_bench_ptq4dm.presets import POLICIES

    (provider,) = tfq_quantizers()
    assert provider.policies == tuple(policy.name for policy in POLICIES)
