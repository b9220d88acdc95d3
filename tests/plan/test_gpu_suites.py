"""The suites for the kernels of a GPU, planned on a machine that has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfq_bench.errors import SuiteError
from tfq_bench.host.plugins import discover
from tfq_bench.plan.planner import make_plan
from tfq_bench.plan.suite import load_suite, parse_suite

SMALL = {
    'name = "sdxl"\nweights': 'name = "ddpm-cifar10"\nweights',
    'sampler = "euler"': 'sampler = "ddim"',
}
"""Another network in SDXL's place: following a call of that takes most of a minute."""


def planned(name, *, changes=(), optional=True):
    """The plan of a packaged suite, parts of its text replaced."""
    text = load_suite(name).text
    changes = dict(changes)
    if optional:
        changes['name = "cuda"\n'] = 'name = "cuda"\noptional = true\n'
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return make_plan(parse_suite(text, f"{name}.toml", Path()), discover())


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """As in CI, also where there is one."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_cifar10_gpu_executes_each_state_twice():
    """Four methods at two widths, one policy, simulated and on kernels: the latter are skipped."""
    cells = planned("cifar10-gpu").cells[1:]
    assert 16 == len(cells)
    assert {"uniform-io16"} == {cell.cell.scheme.policy for cell in cells}
    for simulated, lowered in zip(cells[::2], cells[1::2], strict=True):
        assert (simulated.execution, lowered.execution) == ("simulated", "lowered")
        assert simulated.cell.label.replace("simulate", "cuda") == lowered.cell.label
        assert "needs an NVIDIA GPU" in lowered.skip


@pytest.mark.parametrize(
    ("name", "cells", "fair"), [("cifar10-methods", 205, 72), ("cifar10-ablation", 67, 66)]
)
def test_methods_are_compared_under_the_fair_policy(name, cells, fair):
    """As many cells as the suite's comments say."""
    plan = planned(name, optional=False)
    assert cells == len(plan.cells)
    policies = [one.cell.scheme.policy for one in plan.cells if one.cell.quantizer.name != "fp"]
    assert fair == policies.count("uniform-io16")


@pytest.mark.parametrize("name", ["cifar10-architectures", "cifar10-cpu", "cifar10-gpu", "peers"])
def test_suites_that_compare_methods_have_the_fair_policy_alone(name):
    """Contestants have their own."""
    policies = {
        one.given.get("policy") for one in load_suite(name).quantizers if "wbits" in one.given
    }
    assert {"uniform-io16"} == policies


def test_sdxl_speed_needs_no_download():
    """Random weights of a smaller network in SDXL's place: nothing has to be fetched."""
    found = planned("sdxl-speed", changes=SMALL)
    labels = [cell.cell.label.partition(" / ")[2] for cell in found.cells]
    assert ["fp FP / eager", "rtn W8A8 / cuda", "rtn W4A8 / cuda"] == labels
    assert [None, True, True] == [cell.skip and "NVIDIA GPU" in cell.skip for cell in found.cells]


@pytest.mark.parametrize(("name", "changes"), [("cifar10-gpu", {}), ("sdxl-speed", SMALL)])
def test_without_a_gpu_the_suites_are_refused(name, changes):
    """They ask for kernels, so that a run without them would show nothing."""
    with pytest.raises(SuiteError, match="backend 'cuda' cannot run here"):
        planned(name, changes=changes, optional=False)
