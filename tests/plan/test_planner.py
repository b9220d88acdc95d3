"""A suite and the plugins become cells and skips with reasons; a user's mistake, a sentence."""

from pathlib import Path

import pytest

from tfq_bench.errors import AssetError, BrokenPlugin, NothingToDo, PluginConflict, SuiteError
from tfq_bench.plan.suite import Entry, Exclude
from tfq_bench.testing import tiny_plugin
from tfq_bench.testing.tiny import TinyModel


def entry(name, *, optional=False, standby=False, **given):
    """One `[[...]]` table."""
    return Entry(name=name, optional=optional, standby=standby, given=given)


def refused(plan, error, **changes):
    """What planning says when it raises exactly `error`."""
    with pytest.raises(error) as caught:
        plan(**changes)
    assert error is caught.type
    return str(caught.value)


def cell_of(plan, label):
    """The planned cell whose label ends so."""
    (found,) = (planned for planned in plan.cells if planned.cell.label.endswith(label))
    return found


def test_axes_multiply(small_plan):
    """Full precision once, then every scheme on every backend, in the order of the suite."""
    found = small_plan(seeds=(0, 3))
    expected = ["fp FP / eager"] + [
        f"crude {scheme} / {backend}{seed}"
        for scheme in ("W8A8", "W4A8")
        for seed in ("", " / seed 3")
        for backend in ("simulate", "box")
    ]
    assert [f"tiny / {label}" for label in expected] == [p.cell.label for p in found.cells]
    assert ["full-precision", "simulated", "lowered"] == [p.execution for p in found.cells[:3]]
    assert len(expected) == len({planned.cell.key for planned in found.cells})


def test_every_cell_is_compared_with_its_model_s_full_precision(small_plan):
    """Two models have a reference cell each; a reference has none itself."""
    found = small_plan(models=(entry("tiny"), entry("tiny", weights_seed=1)))
    one, other = found.cells[:5], found.cells[5:]
    for cells in (one, other):
        assert [None] + [cells[0].cell.key] * 4 == [planned.reference for planned in cells]
    assert one[0].cell.key != other[0].cell.key


def test_without_full_precision_nothing_is_a_reference(small_plan):
    """A suite may leave the full-precision cell out, by not asking or by excluding it."""
    without = small_plan(quantizers=(entry("crude"),))
    excluded = small_plan(excludes=(Exclude(patterns={"scheme": "FP"}, reason="slow"),))
    for found in (without, excluded):
        assert {None} == {planned.reference for planned in found.cells}
        assert "FP" not in {planned.cell.scheme.label for planned in found.cells}


def test_shards_cover_the_images_once(small_plan):
    """Index ranges are fixed by the plan; the last one is what is left."""
    found = small_plan(sampling={"images": 7, "shard": 3})
    assert ((0, 3), (3, 6), (6, 7)) == found.shards
    assert {3} == {len(planned.keys.sample) for planned in found.cells}


def test_plugins_of_a_cell(small_plan):
    """A cell names the distributions of its model, quantizer, backend and metrics, no others."""
    found = small_plan(metrics=(entry("bits"),))
    host = next(p for p in found.cells[0].plugins if p.startswith("tfq-bench=="))
    assert (host, "tiny-dist==1.0") == cell_of(found, "FP / eager").plugins
    assert ("odd-dist==1.0", host, "tiny-dist==1.0") == cell_of(found, "W8A8 / box").plugins


def test_simulated_cells_are_not_timed(small_plan):
    """Latency is measured of full precision and of kernels only."""
    measured = {p.execution: p.keys.measure is not None for p in small_plan().cells}
    assert {"full-precision": True, "simulated": False, "lowered": True} == measured


def test_nothing_is_timed_for_metrics_that_do_not_read_timings(small_plan):
    """Timings run alone: a suite without such a metric does not pay for them."""
    assert {None} == {p.keys.measure for p in small_plan(metrics=(entry("bits"),)).cells}


@pytest.mark.parametrize(
    ("changes", "label", "reason"),
    [
        (
            {"quantizers": (entry("crude", wbits=6), entry("fp"))},
            "W6A8 / box",
            "backend 'box' has weights of 4, 8 bits, not 6",
        ),
        (
            {"quantizers": (entry("crude", abits=32), entry("fp"))},
            "W8A32 / box",
            "backend 'box' has activations of 8 bits, not 32",
        ),
        ({"device": "cuda"}, "W4A8 / box", "backend 'box' runs on cpu, not on cuda"),
        (
            {"backends": (entry("simulate"), entry("box", optional=True, fault="lacks"))},
            "W4A8 / box",
            "this processor has no box instructions.",
        ),
    ],
)
def test_what_cannot_run_is_skipped_with_its_reason(small_plan, changes, label, reason):
    """Gaps of a backend, and an optional one that the machine lacks, leave the rest to run."""
    found = small_plan(**changes)
    assert reason == cell_of(found, label).skip
    assert cell_of(found, label) not in found.runnable()
    simulated = cell_of(found, label.replace("box", "simulate"))
    assert simulated in found.runnable()
    assert simulated.skip is None


def test_a_backend_on_standby_executes_what_no_other_can(small_plan, monkeypatch):
    """Scheme by scheme; what it stands in for is still listed as left out."""
    backends = (entry("simulate", standby=True), entry("box", optional=True))
    here = small_plan(backends=backends)
    assert ["fp FP / eager", "crude W8A8 / box", "crude W4A8 / box"] == [
        planned.cell.label.removeprefix("tiny / ") for planned in here.cells
    ]
    monkeypatch.setenv("SMALL_LACKS", "1")
    there = small_plan(backends=backends)
    assert [None, "simulate", "simulate"] == [
        planned.cell.backend.name if planned.cell.scheme.label != "FP" else None
        for planned in there.runnable()
    ]
    assert "box" in {planned.cell.backend.name for planned in there.cells if planned.skip}


def test_a_machine_that_lacks_a_backend_has_another_plan(small_plan, monkeypatch):
    """Keys are the same everywhere; what runs is not, so the id of the plan says it."""
    backends = (entry("simulate"), entry("box", optional=True))
    here = small_plan(backends=backends)
    monkeypatch.setenv("SMALL_LACKS", "1")
    there = small_plan(backends=backends)
    assert [p.cell.key for p in here.cells] == [p.cell.key for p in there.cells]
    assert (5, 3) == (len(here.runnable()), len(there.runnable()))
    assert here.id != there.id


def test_excluded_cells_are_no_cells(small_plan):
    """An exclusion removes what it matches and nothing else."""
    rule = Exclude(patterns={"scheme": "W4*", "backend": "box"}, reason="known to fail")
    before, after = small_plan(), small_plan(excludes=(rule,))
    gone = cell_of(before, "W4A8 / box")
    assert [p.cell.key for p in before.cells if p is not gone] == [p.cell.key for p in after.cells]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"models": (entry("tiyn"),)}, "no model is called 'tiyn'; did you mean 'tiny'"),
        ({"quantizers": (entry("crud"),)}, "no quantizer is called 'crud'; did you mean 'crude'"),
        ({"backends": (entry("bx"),)}, "no backend is called 'bx'; did you mean 'box'"),
        ({"metrics": (entry("scor"),)}, "no metric is called 'scor'; did you mean 'score'"),
        (
            {"models": (entry("tiny", weight_seed=1),)},
            "[[model]] 'tiny': unknown option 'weight_seed'; did you mean 'weights_seed'",
        ),
        (
            {"quantizers": (entry("crude", wbit=8),)},
            "[[quantizer]] 'crude': unknown option 'wbit'; did you mean 'wbits' or 'abits'",
        ),
        (
            {"backends": (entry("simulate", optionl=True),)},
            "[[backend]] 'simulate': unknown option 'optionl'; did you mean 'optional'",
        ),
        (
            {"metrics": (entry("bits", k=1),)},
            "[[metric]] 'bits': unknown option 'k'; known: label.",
        ),
        (
            {"metrics": (entry("bits", seeds=[0]),)},
            "[[metric]] 'bits': 'seeds' belongs to the top of the file, above every table.",
        ),
        (
            {"models": (entry("tiny", weights_seed=-1),)},
            "[[model]] 'tiny': option 'weights_seed' must be at least 0, found -1.",
        ),
        (
            {"quantizers": (entry("crude", wbits=1),)},
            "[[quantizer]] 'crude': wbits must be among 8, 6, 4 (32 is float), found 1.",
        ),
        (
            {"quantizers": (entry("crude", policy="papr"),)},
            "no policy is called 'papr'; did you mean 'paper'",
        ),
        (
            {"sampling": {"sampler": "dimm"}},
            "[sampling]: model 'tiny' has no sampler 'dimm'; did you mean 'ddim'",
        ),
        ({"sampling": {"steps": 2000}}, "model 'tiny' samples in 1 to 1000 steps, found 2000."),
        ({"backends": ()}, "suite 'small' quantizes but names no [[backend]]; name at least 'sim"),
        (
            {"quantizers": (entry("fp"),), "backends": (entry("bx"),)},
            "no backend is called 'bx'; did you mean 'box'",
        ),
        (
            {"backends": (entry("box", fault="lacks"),)},
            "backend 'box' cannot run here: this processor has no box instructions. Leave it out, "
            "or write 'optional = true' in its [[backend]] table.",
        ),
    ],
)
def test_a_wrong_suite_is_refused(small_plan, changes, sentence):
    """What is not installed, not offered or not possible is told with what to write instead."""
    assert sentence in refused(small_plan, SuiteError, **changes)


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"models": (entry("tiny"), entry("tiny", weights_seed=0))}, "tiny / fp FP / eager"),
        ({"models": (entry("tiny"), entry("tiny-dist:tiny"))}, "tiny-dist:tiny / fp FP / eager"),
        ({"quantizers": (entry("fp"), entry("fp"))}, "tiny / fp FP / eager"),
        ({"quantizers": (entry("crude", wbits=[8, 8]),)}, "tiny / crude W8A8 / simulate"),
        ({"backends": (entry("box"), entry("box", fault=""))}, "tiny / crude W8A8 / box"),
    ],
)
def test_twins_are_refused(small_plan, changes, label):
    """A cell that is asked for twice, in whatever words, is a mistake."""
    expected = f"the suite asks twice for the cell '{label}'; remove one of them."
    assert expected == refused(small_plan, SuiteError, **changes)


def test_equal_metrics_are_refused(small_plan):
    """A metric may be asked for twice with other options only."""
    twice = (entry("score"), entry("score", fault=""))
    sentence = "asks twice for the metric 'score' with equal options"
    assert sentence in refused(small_plan, SuiteError, metrics=twice)


def test_nothing_left_to_run(small_plan):
    """A suite without a cell to run says why."""
    rule = Exclude(patterns={"model": "*"}, reason="all")
    sentence = "suite 'small' has no cell to run: its [[exclude]] tables leave nothing."
    assert sentence == refused(small_plan, NothingToDo, excludes=(rule,))
    sentence = "suite 'small' has no cell to run: backend 'box' has weights of 4, 8 bits, not 6."
    only = {"quantizers": (entry("crude", wbits=6),), "backends": (entry("box"),)}
    assert sentence == refused(small_plan, NothingToDo, **only)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("factory", "raised RuntimeError: no factory."),
        ("digest", "model 'odd' (odd-dist==1.0) cannot say what it is: AttributeError: "),
        ("sampler", "cannot say what it is: RuntimeError: no sampler."),
        ("exit", "cannot say what it is: SystemExit: bye."),
        ("definition", "cannot say what it is: TypeError: "),
    ],
)
def test_a_model_whose_code_raises(small_plan, fault, sentence):
    """A plugin's defect is named as such, with the plugin and the cause."""
    assert sentence in refused(small_plan, BrokenPlugin, models=(entry("odd", fault=fault),))


def test_what_a_model_says_itself_is_passed_on(small_plan):
    """A model that refuses the suite in its own words is not a defect."""
    sentence = refused(small_plan, SuiteError, models=(entry("odd", fault="steps"),))
    assert "too many steps." == sentence


def test_a_backend_whose_check_raises(small_plan):
    """An unforeseen error is a defect of the plugin, whether the backend is optional or not."""
    for optional in (False, True):
        backends = (entry("box", optional=optional, fault="oops"),)
        sentence = refused(small_plan, BrokenPlugin, backends=backends)
        assert (
            "backend 'box' (odd-dist==1.0) cannot say whether it runs here: ValueError: oops."
            == sentence
        )


def test_a_metric_without_its_files(small_plan):
    """Missing weights are told when the plan is made, not after hours of sampling."""
    assert "its weights are missing." == refused(
        small_plan, AssetError, metrics=(entry("score", fault="x"),)
    )


def test_two_distributions_that_offer_one_name(small_plan, plugin_host):
    """The suite chooses one of them; without a choice there is no plan."""
    copy = Path(tiny_plugin.__file__).read_text("utf-8")
    plugin_host.install("tiny", copy, distribution="other-dist")
    assert "'other-dist:tiny' or 'tiny-dist:tiny'" in refused(small_plan, PluginConflict)
    chosen = small_plan(models=(entry("tiny-dist:tiny"),))
    other = small_plan(models=(entry("other-dist:tiny"),))
    assert {"tiny-dist:tiny"} == {planned.axes["model"] for planned in chosen.cells}
    assert chosen.cells[0].cell.key != other.cells[0].cell.key


def test_files_are_handed_over_as_absolute_paths(small_plan, tmp_path):
    """What a factory gets does not depend on the folder the command was started in."""
    (tmp_path / "a").write_text("a")
    found = small_plan(metrics=(entry("score", file="a"),))
    assert str(tmp_path / "a") == found.metrics[0].options["file"]


def test_what_a_model_says_of_how_it_was_read(small_plan, monkeypatch):
    """One note, however many cells it has, in one line; one that cannot say it is named."""
    said = ["its 'a' changes nothing\n::error::", "nor does its 'b'"]
    monkeypatch.setattr(TinyModel, "remarks", lambda model, sampler: said, raising=False)
    (note,) = (note for note in small_plan().notes if note.startswith("model 'tiny'"))
    assert "model 'tiny': its 'a' changes nothing ::error::; nor does its 'b'." == note
    monkeypatch.setattr(TinyModel, "remarks", lambda model, sampler: 1 / 0)
    sentence = refused(small_plan, BrokenPlugin)
    assert sentence.startswith("model 'tiny' cannot say how it was read: ZeroDivisionError")
