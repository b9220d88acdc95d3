"""What a backend says it does is held against what its layers did."""

import dataclasses

import pytest
import torch
from torch import nn

from tfq_bench.errors import LoweringError
from tfq_bench.pipeline.lower import lowering_facts
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.testing.inputs import tiny_state
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import Scheme


@pytest.fixture(scope="module")
def cell():
    """A loaded model and a state of it."""
    loaded = load_tiny()
    return loaded, tiny_state(loaded, Scheme(wbits=4, abits=8))


def facts_of(cell, lowered, **changes):
    """The facts of a changed `Lowered`, announced as what it was before."""
    return lowering_facts(
        *cell, dataclasses.replace(lowered, **changes), None, execution=lowered.execution
    )


def test_facts_say_what_ran_in_one_call(cell):
    """Counts from before the call are forgotten; every layer was checked, with a wide margin."""
    lowered = simulate(*cell)
    lowered.executed["left over from before"] = 9
    facts = facts_of(cell, lowered)
    assert {"fp32 on dequantized integers": 13} == facts["executed"]
    assert "simulated" == facts["execution"]
    assert 13 == facts["layers"]["checked"]
    assert 0 < facts["layers"]["worst"]["share"] < 0.1
    assert facts["parity"] is None


def test_details_of_the_backend_are_kept_as_they_are_after_the_calls(cell):
    """Also what it notes while the network runs; nothing is known of a backend that is silent."""
    lowered = simulate(*cell)
    assert {} == facts_of(cell, lowered)["details"]
    details = {"seconds": {"weights": 0.5}, "graph": {"graphs": 0}}
    lowered.network.register_forward_hook(lambda *_: details["graph"].update(graphs=1))
    found = facts_of(cell, lowered, details=details)["details"]
    assert {"seconds": {"weights": 0.5}, "graph": {"graphs": 1}} == found


@pytest.mark.parametrize("value", [float("nan"), torch.ones(1), {1, 2}])
def test_details_that_are_no_json(cell, value):
    """The result could not be written, or not be read again."""
    with pytest.raises(LoweringError, match=r"`Lowered.details` must be .* plain JSON"):
        facts_of(cell, simulate(*cell), details={"bytes": value})


def test_full_precision_has_nothing_to_prove(cell):
    """No layers, no kernels, no parity."""
    loaded, _ = cell
    facts = lowering_facts(loaded, None, simulate(loaded, None), None, execution="full-precision")
    assert (None, None, []) == (facts["layers"], facts["parity"], facts["kernels"])


def test_parity_has_its_limit(cell):
    """Kernels that equal their simulation are at zero of a limit that full precision gives."""
    loaded, state = cell
    lowered = dataclasses.replace(simulate(loaded, state), execution="lowered")
    uses = [dataclasses.replace(use, fallback="a test") for use in lowered.kernels]
    facts = lowering_facts(
        loaded,
        state,
        dataclasses.replace(lowered, kernels=tuple(uses)),
        simulate(loaded, state),
        execution="lowered",
    )
    assert 0 == facts["parity"]["relative"] < facts["parity"]["limit"] < 1
    assert "a test" == facts["kernels"][-1]["fallback"]


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (3, {"macs": 1}, "'first.conv1': expected 147456 multiply-accumulates"),
        (3, {"wbits": 8}, "'first.conv1': the state has 4 bits for weights and 8"),
        (3, {"abits": 4}, "the backend says 4 and 4"),
        (3, {"layer": "first.conv2"}, "lists 13 layers.*look at first.conv1"),
    ],
)
def test_a_list_that_is_not_the_state(cell, number, change, message):
    """The list of kernels is what metrics count, so it must be the state's."""
    lowered = simulate(*cell)
    uses = list(lowered.kernels)
    uses[number] = dataclasses.replace(uses[number], **change)
    with pytest.raises(LoweringError, match=message):
        facts_of(cell, lowered, kernels=tuple(uses))


def test_a_layer_that_is_not_called(cell):
    """A module under the right name that the network does not call."""
    lowered = simulate(*cell)
    lowered.network.second.forward = lambda x, time: x[:, :16]
    with pytest.raises(LoweringError, match=r"'second.conv1' did not run.* nor did 3 others"):
        facts_of(cell, lowered)


def test_a_layer_without_a_module(cell):
    """What cannot be checked is not believed."""
    lowered = simulate(*cell)
    inner = lowered.network.first.time
    del lowered.network.first.time
    object.__setattr__(lowered.network.first, "time", inner.forward)
    with pytest.raises(LoweringError, match=r"'first.time' is not in the lowered network"):
        facts_of(cell, lowered)


def test_hooks_are_gone_afterwards(cell):
    """Neither the check nor its failure leaves anything in the network."""
    lowered = simulate(*cell)
    facts_of(cell, lowered)
    nn.init.constant_(lowered.network.first.conv1.bias, torch.nan)
    with pytest.raises(LoweringError, match=r"'first.conv1' gives values that are not finite"):
        facts_of(cell, lowered)
    for module in lowered.network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
