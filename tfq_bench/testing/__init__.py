"""What plugin authors test with. Nothing here is active until it is asked for.

* `plugin_host`: a pytest fixture; throw-away plugins instead of the installed ones. Activate it in
  a ``conftest.py``: ``pytest_plugins = ["tfq_bench.testing.plugin_host"]``.
* `tiny`: a diffusion model small enough for tests that run whole suites.
* `inputs`: what a metric reads, of the tiny model.
* `by_hand`: quantized layers and states without a quantizer, for tests of backends.
* `policies`: the bits that a layer policy gives each layer.
* `integers`: exact sums of a quantized layer, for tests of kernels.
* `contracts`: test classes to subclass; they state what a plugin must keep to.

Here: what plugin authors test with: contracts, a tiny model, a plugin host without installed
    plugins, faults to inject.
Not here: tests of the host itself (`tests/`).
Imports: api, errors, host, host.discovery, keys, pipeline, protocols, quant, quant.lower,
    quant.state, seeds, types.
"""
