"""Baselines, plans and environments that were changed by hand are refused, or left out in words."""

import json
import logging

import pytest

from tfq_bench.store.seals import seal

from .answers import call, edit, gate


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"metric": "psnr", "value": ', '"metric": "psnr", "value": 1'),
        ('"n": 4', '"n": 5'),
        ('"direction": "higher"', '"direction": "lower"'),
        ('"level": 0.95', '"level": 0.99'),
        ('"margin": 0.25', '"margin": 2.5'),
        ('"label": "tiny', '"label": "tinny'),
        ('"created_from": "', '"created_from": "0'),
        ('"volatile": false', '"volatile": true'),
    ],
)
def test_a_changed_baseline_is_refused(copy, old, new):
    """Exit code 2: it comes from version control or is saved anew."""
    edit(copy / "base.json", old, new)
    code, _, err = call("gate", copy / "run", "--baseline", copy / "base.json")
    assert 2 == code
    assert "expected the checksum" in err
    assert "Take it from version control" in err


def test_a_line_lost_or_doubled_in_a_baseline_is_refused(copy):
    """Also when what is left is a baseline in form."""
    content = json.loads((copy / "base.json").read_text())
    for values in (content["values"][1:], [*content["values"], content["values"][0]]):
        (copy / "base.json").write_text(json.dumps(content | {"values": values}))
        assert 2 == gate(copy)[0]
        sealed = content | {"values": values}
        (copy / "base.json").write_text(json.dumps(sealed | {"checksum": seal(sealed)}))
        assert gate(copy)[0] in (0, 2)  # a sealed baseline with fewer numbers is a reviewed one
    assert "found it twice" in call("baseline", "show", copy / "base.json")[2]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"status": "planned"', '"status": "skipped"'),
        ('"id": "', '"id": "0'),
        ('"seed": "0"', '"seed": "1"'),
    ],
)
def test_a_changed_plan_is_refused_until_the_suite_runs_again(copy, old, new):
    """A cell that an edit takes out of the plan would be out of the gate as well."""
    edit(copy / "run" / "plan.json", old, new)
    code, _, err = call("gate", copy / "run", "--baseline", copy / "base.json")
    assert (2, True) == (code, "Run the suite again in this folder" in err)


def test_a_changed_environment_is_left_out_and_the_rest_goes_on(copy, caplog):
    """Times then have unknown hardware and do not compare; everything else does."""
    (path,) = (copy / "run").glob("env-*.json")
    edit(path, '"cores": ', '"cores": 1')
    with caplog.at_level(logging.WARNING, "tfq_bench.store"):
        assert 0 == gate(copy)[0]
    assert "it was changed after it was written" in caplog.text
    edit(
        copy / "rules.toml",
        'metric = "latency-ms"\nignore = true',
        'metric = "latency-ms"\nno-worse-than = { ratio = 99 }',
    )
    code, out = gate(copy)
    assert (4, True) == (code, "found unknown" in out)
