"""Every first-party method on the int8 kernels: the same bits as its simulation, no fallback."""

from __future__ import annotations

import pytest

from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant import RoundToNearest, network_parity, simulate
from tfq_bench.seeds import generator
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import Scheme
from tfq_bench_cpu.backend import CpuBackend
from tfq_bench_ptq4dm.quantizer import Ptq4dm
from tfq_bench_qdiffusion import presets as qdiffusion_presets
from tfq_bench_qdiffusion.quantizer import QDiffusion
from tfq_bench_tfmq import presets as tfmq_presets
from tfq_bench_tfmq.quantizer import Tfmq

QUICK = {"preset": "quick", "iterations": 5}
METHODS = {
    "rtn": (RoundToNearest, {}),
    "rtn, split": (RoundToNearest, {"split": True}),
    "rtn, features in float16": (RoundToNearest, {"temporal": "cache16"}),
    "ptq4dm": (Ptq4dm, {"preset": "quick"}),
    "ptq4dm, reconstructed": (Ptq4dm, QUICK),
    "qdiffusion": (QDiffusion, {**QUICK, "activation_iterations": 3}),
    "tfmq": (Tfmq, {**QUICK, "method": "cvpr24"}),
    "tfmq, a table per step": (Tfmq, {**QUICK, "method": "cvpr24-code"}),
    "tfmq, cache or block": (
        Tfmq,
        {**QUICK, "method": "tpami25", "cache_bits": 4, "activation_iterations": 3},
    ),
    "tfmq, cache": (Tfmq, {**QUICK, "maintenance": "cache"}),
}


def ignore(fraction, text):
    """Progress that nobody looks at."""


@pytest.mark.parametrize("wbits", [8, 4])
@pytest.mark.parametrize("method", METHODS)
def test_kernels_and_simulation_give_the_same_bits(method, wbits):
    """At every step of the sampler, with split inputs, tables per step and caches."""
    factory, options = METHODS[method]
    loaded = load_tiny(steps=5)
    quantizer = factory(scheme=Scheme(wbits=wbits, abits=8), **options)
    needs = quantizer.calibration_needs(loaded, images=4)
    data = capture(loaded, needs, seed=1, batch=4, progress=ignore)
    state = quantizer.quantize(loaded, data, generator=generator(0, "test"), progress=ignore)
    lowered = CpuBackend().lower(loaded, state)
    assert 0.0 == network_parity(loaded, simulate(loaded, state), lowered).max_abs
    assert [] == [use.layer for use in lowered.kernels if use.fallback is not None]
    assert lowered.kernels
    assert any(count for count in lowered.executed.values())


def test_tfmq_and_qdiffusion_spend_the_same_outside_of_the_temporal_block():
    """One preset name, one effort: their difference is the method's, not the budget's."""
    assert tfmq_presets.EFFORTS.keys() == qdiffusion_presets.EFFORTS.keys()
    for name, effort in qdiffusion_presets.EFFORTS.items():
        assert effort.items() < tfmq_presets.EFFORTS[name].items()
