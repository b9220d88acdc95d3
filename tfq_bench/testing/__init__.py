"""What plugin authors test with. Nothing here is active until it is asked for.

* `plugin_host`: a pytest fixture; throw-away plugins instead of the installed ones. Activate it in
  a ``conftest.py``: ``pytest_plugins = ["tfq_bench.testing.plugin_host"]``.
* `tiny`: a diffusion model small enough for tests that run whole suites.
* `inputs`: what a metric reads, of the tiny model.
* `by_hand`: quantized layers and states without a quantizer, for tests of backends.
* `integers`: exact sums of a quantized layer, for tests of kernels.
* `contracts`: test classes to subclass; they state what a plugin must keep to.
"""
