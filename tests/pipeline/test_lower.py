"""What a backend says it does is held against what its layers did."""

import dataclasses

import pytest
from torch import nn

from tfq_bench.errors import LoweringError
from tfq_bench.pipeline.lower import lowering_facts
from tfq_bench.protocols import KernelUse, Lowered, StepCursor
from tfq_bench.quant.simulate import simulate
from tfq_bench.testing.tiny import load_tiny

KERNEL = "fast int8"


class Counting(nn.Module):
    """The network, noting that its kernel ran as often as it is told to say."""

    def __init__(self, network, executed, times):
        super().__init__()
        self.network, self.executed, self.times = network, executed, times

    def forward(self, x, timestep):
        self.executed[KERNEL] = self.times
        return self.network(x, timestep)


def lowered(loaded, *, promised, ran):
    """A network of `promised` kernels, of which `ran` ran."""
    executed = {"left over from before": 9}
    use = KernelUse(layer="l", kernel=KERNEL, wbits=8, abits=8, macs=1)
    fallback = dataclasses.replace(use, kernel="slow", fallback="no such kernel")
    return Lowered(
        network=Counting(loaded.network, executed, ran),
        step=StepCursor("cpu"),
        kernels=(*[use] * promised, fallback),
        executed=executed,
        execution="lowered",
    )


def test_facts_say_what_ran_in_one_call():
    """Counts from before the call are forgotten; fallbacks stay listed with their reason."""
    loaded = load_tiny()
    facts = lowering_facts(loaded, lowered(loaded, promised=2, ran=2), simulate(loaded, None))
    assert {KERNEL: 2} == facts["executed"]
    assert "lowered" == facts["execution"]
    assert "no such kernel" == facts["kernels"][-1]["fallback"]
    assert facts["parity"] is not None


def test_a_kernel_that_was_promised_and_did_not_run():
    """A silent fallback fails the cell: its latency would be told of another kernel."""
    loaded = load_tiny()
    with pytest.raises(LoweringError, match=f"did not run: {KERNEL}"):
        lowering_facts(loaded, lowered(loaded, promised=2, ran=1), None)


def test_simulation_promises_no_kernels():
    """Float arithmetic has no parity with itself and nothing to prove."""
    loaded = load_tiny()
    facts = lowering_facts(loaded, simulate(loaded, None), None)
    assert facts["parity"] is None
    assert [] == [use for use in facts["kernels"] if use["fallback"] is None]
