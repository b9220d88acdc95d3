"""A suite and the plugins become cells, skips with reasons and keys; a user's mistake, a sentence.

`box` is a throw-away backend, `crude` a quantizer, `odd` and `even` are models of one digest. The
option `fault` makes their code raise; `file` is a path, and shows that files count by content.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from tfq_bench.errors import (
    AssetError,
    BrokenPlugin,
    NothingToDo,
    PluginConflict,
    SuiteError,
)
from tfq_bench.planner import make_plan
from tfq_bench.suite import Entry, Exclude, parse_suite
from tfq_bench.testing import tiny_plugin

PLUGIN = """
from tfq_bench import api

FILE = api.Option(name="file", kind="path", default="", help="A file.")
FAULT = api.Option(name="fault", kind="str", default="", help="What goes wrong.")

class Box:
    def __init__(self, *, fault, file):
        self.fault = fault

    def check(self, *, device):
        if self.fault == "lacks":
            raise api.LoweringError("this processor has no box instructions.")
        if self.fault:
            raise ValueError(self.fault)

class Sampler:
    def __init__(self, definition):
        self.definition = definition

class Odd:
    digest = "0123"

    def __init__(self, *, fault, file):
        self.fault = fault
        if fault == "factory":
            raise RuntimeError("no factory")
        if fault == "digest":
            del type(self).digest

    def sampler(self, name, steps):
        if self.fault == "sampler":
            raise RuntimeError("no sampler")
        if self.fault == "exit":
            raise SystemExit("bye")
        if self.fault == "steps":
            raise api.SuiteError("too many steps.")
        return Sampler({"sampler": object() if self.fault == "definition" else name})

class Score:
    def __init__(self, *, file, fault):
        if fault:
            raise api.AssetError("its weights are missing.")

@api.hookimpl
def tfq_models():
    for name in ("odd", "even"):
        yield api.ModelProvider(
            name=name, summary="", factory=f"{__name__}:Odd", options=(FAULT, FILE)
        )

@api.hookimpl
def tfq_backends():
    yield api.BackendProvider(
        name="box", summary="", factory=f"{__name__}:Box", options=(FAULT, FILE),
        wbits=(4, 8), abits=(8,), devices=("cpu",),
    )

@api.hookimpl
def tfq_quantizers():
    yield api.QuantizerProvider(
        name="crude", summary="", factory=f"{__name__}:None_", options=(FILE,),
        wbits=(8, 6, 4), abits=(8, 32), policies=("uniform", "paper"),
    )

@api.hookimpl
def tfq_metrics():
    yield api.MetricProvider(
        name="score", summary="", factory=f"{__name__}:Score", options=(FAULT, FILE)
    )
"""
TEXT = """
schema = 1
suite.name = "small"
sampling = {sampler = "ddim", steps = 3, images = 4, batch = 2, shard = 2}
model = [{name = "tiny"}]
quantizer = [{name = "fp"}, {name = "crude", wbits = [8, 4]}]
backend = [{name = "simulate"}, {name = "box"}]
metric = [{name = "bits"}, {name = "score"}]
"""
SECTIONS = ("sampling", "calibration", "timing")


def entry(name, *, optional=False, **given):
    """One `[[...]]` table."""
    return Entry(name=name, optional=optional, given=given)


@pytest.fixture
def plan(plugin_host, tmp_path):
    """A function that plans the small suite with fields of its `SuiteSpec` changed."""
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    plugin_host.install("odd", PLUGIN, distribution="odd-dist")

    def make(folder=tmp_path, **changes):
        spec = parse_suite(TEXT, "s.toml", folder)
        for name in SECTIONS:
            if name in changes:
                changes[name] = {**getattr(spec, name), **changes[name]}
        return make_plan(replace(spec, **changes), plugin_host.discover())

    return make


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


def stages(planned):
    """Every key of a cell, by stage."""
    keys = planned.keys
    return {
        "cell": planned.cell.key,
        **{name: getattr(keys, name) for name in type(keys).__slots__},
    }


def test_axes_multiply(plan):
    """Full precision once, then every scheme on every backend, in the order of the suite."""
    found = plan(seeds=(0, 3))
    expected = ["fp FP / eager"] + [
        f"crude {scheme} / {backend}{seed}"
        for scheme in ("W8A8", "W4A8")
        for seed in ("", " / seed 3")
        for backend in ("simulate", "box")
    ]
    assert [f"tiny / {label}" for label in expected] == [p.cell.label for p in found.cells]
    assert ["full-precision", "simulated", "lowered"] == [p.execution for p in found.cells[:3]]
    assert len(expected) == len({planned.cell.key for planned in found.cells})


def test_every_cell_is_compared_with_its_model_s_full_precision(plan):
    """Two models have a reference cell each; a reference has none itself."""
    found = plan(models=(entry("tiny"), entry("tiny", weights_seed=1)))
    one, other = found.cells[:5], found.cells[5:]
    for cells in (one, other):
        assert [None] + [cells[0].cell.key] * 4 == [planned.reference for planned in cells]
    assert one[0].cell.key != other[0].cell.key


def test_without_full_precision_nothing_is_a_reference(plan):
    """A suite may leave the full-precision cell out, by not asking or by excluding it."""
    without = plan(quantizers=(entry("crude"),))
    excluded = plan(excludes=(Exclude(patterns={"scheme": "FP"}, reason="slow"),))
    for found in (without, excluded):
        assert {None} == {planned.reference for planned in found.cells}
        assert "FP" not in {planned.cell.scheme.label for planned in found.cells}


def test_shards_cover_the_images_once(plan):
    """Index ranges are fixed by the plan; the last one is what is left."""
    found = plan(sampling={"images": 7, "shard": 3})
    assert ((0, 3), (3, 6), (6, 7)) == found.shards
    assert {3} == {len(planned.keys.sample) for planned in found.cells}


def test_plugins_of_a_cell(plan):
    """A cell names the distributions of its model, quantizer, backend and metrics, no others."""
    found = plan(metrics=(entry("bits"),))
    host = next(p for p in found.cells[0].plugins if p.startswith("tfq-bench=="))
    assert (host, "tiny-dist==1.0") == cell_of(found, "FP / eager").plugins
    assert ("odd-dist==1.0", host, "tiny-dist==1.0") == cell_of(found, "W8A8 / box").plugins


def test_simulated_cells_are_not_timed(plan):
    """Latency is measured of full precision and of kernels only."""
    measured = {p.execution: p.keys.measure is not None for p in plan().cells}
    assert {"full-precision": True, "simulated": False, "lowered": True} == measured


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
def test_what_cannot_run_is_skipped_with_its_reason(plan, changes, label, reason):
    """Gaps of a backend, and an optional one that the machine lacks, leave the rest to run."""
    found = plan(**changes)
    assert reason == cell_of(found, label).skip
    assert cell_of(found, label) not in found.runnable()
    simulated = cell_of(found, label.replace("box", "simulate"))
    assert simulated in found.runnable()
    assert simulated.skip is None


def test_excluded_cells_are_no_cells(plan):
    """An exclusion removes what it matches and nothing else."""
    rule = Exclude(patterns={"scheme": "W4*", "backend": "box"}, reason="known to fail")
    before, after = plan(), plan(excludes=(rule,))
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
            "[[metric]] 'bits': unknown option 'k'; it has none.",
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
def test_a_wrong_suite_is_refused(plan, changes, sentence):
    """What is not installed, not offered or not possible is told with what to write instead."""
    assert sentence in refused(plan, SuiteError, **changes)


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
def test_twins_are_refused(plan, changes, label):
    """A cell that is asked for twice, in whatever words, is a mistake."""
    expected = f"the suite asks twice for the cell '{label}'; remove one of them."
    assert expected == refused(plan, SuiteError, **changes)


def test_equal_metrics_are_refused(plan):
    """A metric may be asked for twice with other options only."""
    twice = (entry("score"), entry("score", fault=""))
    sentence = "asks twice for the metric 'score' with equal options"
    assert sentence in refused(plan, SuiteError, metrics=twice)


def test_one_metric_with_two_options(plan, tmp_path):
    """Metrics that differ in an option have keys of their own."""
    (tmp_path / "a").write_text("a")
    found = plan(metrics=(entry("score"), entry("score", file="a")))
    assert 2 == len(set(found.cells[0].keys.evaluate))


def test_models_of_one_content_are_no_twins(plan):
    """Two models of one plugin may share weights and still be two."""
    found = plan(models=(entry("odd"), entry("even")), quantizers=(entry("fp"),))
    assert 2 == len({planned.cell.key for planned in found.cells})


def test_nothing_left_to_run(plan):
    """A suite without a cell to run says why."""
    rule = Exclude(patterns={"model": "*"}, reason="all")
    sentence = "suite 'small' has no cell to run: its [[exclude]] tables leave nothing."
    assert sentence == refused(plan, NothingToDo, excludes=(rule,))
    sentence = "suite 'small' has no cell to run: backend 'box' has weights of 4, 8 bits, not 6."
    only = {"quantizers": (entry("crude", wbits=6),), "backends": (entry("box"),)}
    assert sentence == refused(plan, NothingToDo, **only)


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
def test_a_model_whose_code_raises(plan, fault, sentence):
    """A plugin's defect is named as such, with the plugin and the cause."""
    assert sentence in refused(plan, BrokenPlugin, models=(entry("odd", fault=fault),))


def test_what_a_model_says_itself_is_passed_on(plan):
    """A model that refuses the suite in its own words is not a defect."""
    sentence = refused(plan, SuiteError, models=(entry("odd", fault="steps"),))
    assert "too many steps." == sentence


def test_a_backend_whose_check_raises(plan):
    """An unforeseen error is a defect of the plugin, whether the backend is optional or not."""
    for optional in (False, True):
        backends = (entry("box", optional=optional, fault="oops"),)
        sentence = refused(plan, BrokenPlugin, backends=backends)
        assert (
            "backend 'box' (odd-dist==1.0) cannot say whether it runs here: ValueError: oops."
            == sentence
        )


def test_a_metric_without_its_files(plan):
    """Missing weights are told when the plan is made, not after hours of sampling."""
    assert "its weights are missing." == refused(
        plan, AssetError, metrics=(entry("score", fault="x"),)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": (entry("score", file="absent"),)},
        {"metrics": (entry("score", file="nul\0"),)},
        {"quantizers": (entry("crude", file="absent"),)},
        {"backends": (entry("box", file="absent"),)},
    ],
)
def test_an_option_that_names_no_file(plan, tmp_path, changes):
    """The sentence has the option, the path as it was understood, and the rule behind it."""
    sentence = refused(plan, AssetError, **changes)
    assert f"option 'file' names {str(tmp_path)!r}"[:-1] in sentence
    assert "cannot be read: " in sentence
    assert sentence.endswith("a relative one starts at the suite's folder.")


def test_two_distributions_that_offer_one_name(plan, plugin_host):
    """The suite chooses one of them; without a choice there is no plan."""
    copy = Path(tiny_plugin.__file__).read_text("utf-8")
    plugin_host.install("tiny", copy, distribution="other-dist")
    assert "'other-dist:tiny' or 'tiny-dist:tiny'" in refused(plan, PluginConflict)
    chosen = plan(models=(entry("tiny-dist:tiny"),))
    other = plan(models=(entry("other-dist:tiny"),))
    assert {"tiny-dist:tiny"} == {planned.axes["model"] for planned in chosen.cells}
    assert chosen.cells[0].cell.key != other.cells[0].cell.key


CALIBRATE = {"calibrate", "quantize", "lower", "cell", "sample", "measure", "evaluate"}
QUANTIZE = CALIBRATE - {"calibrate"}
LOWER = QUANTIZE - {"quantize"}
SAMPLE = {"cell", "sample", "evaluate"}
CRUDE = entry("crude", wbits=8)
SMALL = {"quantizers": (entry("fp"), CRUDE), "backends": (entry("box"),)}


@pytest.mark.parametrize(
    ("changes", "expected", "of_full"),
    [
        ({"summary": "other words", "name": "other"}, set(), set()),
        ({"backends": (entry("box", optional=True),)}, set(), set()),
        ({"backends": (entry("box"), entry("simulate"))}, set(), set()),
        ({"excludes": (Exclude(patterns={"model": "x"}, reason="r"),)}, set(), set()),
        ({"sampling": {"sampler": ""}}, set(), set()),  # the model's default is the same
        ({"sampling": {"shard": 4}}, {"sample", "evaluate"}, {"sample", "evaluate"}),
        ({"sampling": {"images": 6}}, {"sample", "evaluate"}, {"sample", "evaluate"}),
        ({"sampling": {"batch": 4}}, SAMPLE, SAMPLE),
        ({"sampling": {"seed": 1}}, SAMPLE, SAMPLE),
        ({"sampling": {"steps": 4}}, CALIBRATE, QUANTIZE),
        ({"sampling": {"sampler": "ddim-stochastic"}}, CALIBRATE, QUANTIZE),
        ({"threads": 1}, CALIBRATE, QUANTIZE),
        ({"device": "cuda", "backends": (entry("simulate"),)}, CALIBRATE, QUANTIZE),
        ({"models": (entry("tiny", weights_seed=1),)}, CALIBRATE, QUANTIZE),
        ({"calibration": {"images": 3}}, CALIBRATE, set()),
        ({"calibration": {"batch": 3}}, CALIBRATE, set()),
        ({"calibration": {"seed": 3}}, CALIBRATE, set()),
        ({"seeds": (5,)}, CALIBRATE, set()),
        ({"timing": {"rounds": 5}}, {"measure", "evaluate"}, {"measure", "evaluate"}),
        ({"quantizers": (entry("fp"), entry("crude", wbits=4))}, QUANTIZE, set()),
        ({"quantizers": (entry("fp"), entry("crude", wbits=8, policy="paper"))}, QUANTIZE, set()),
        ({"quantizers": (CRUDE,)}, {"evaluate"}, None),  # nothing to compare with any more
        ({"backends": (entry("box", fault="lacks", optional=True),)}, LOWER, set()),
        ({"metrics": (entry("bits"), entry("score", file="a"))}, {"evaluate"}, {"evaluate"}),
        ({"metrics": (entry("score"),)}, {"evaluate"}, {"evaluate"}),
    ],
)
def test_what_moves_a_key(plan, tmp_path, changes, expected, of_full):
    """A change of the suite moves the keys of the stages that it can influence, and no other."""
    (tmp_path / "a").write_text("a")

    def found(**changes):
        cells = plan(**{**SMALL, **changes}).cells
        full = next((p for p in cells if p.execution == "full-precision"), None)
        return full, next(p for p in cells if p is not full)

    before, after = found(), found(**changes)
    for one, other, moved in zip(before, after, (of_full, expected), strict=True):
        if moved is None:
            assert other is None
            continue
        one, other = stages(one), stages(other)
        assert moved == {stage for stage in one if one[stage] != other[stage]}


def test_more_images_find_the_first_ones_done(plan):
    """Whole shards keep their keys when images are added; the cell keeps its key."""
    few, many = plan(sampling={"images": 4}), plan(sampling={"images": 7})
    for one, other in zip(few.cells, many.cells, strict=True):
        assert one.keys.sample == other.keys.sample[:2]
        assert 4 == len(set(other.keys.sample))


def test_all_widths_share_one_calibration(plan):
    """Bits, policies and backends do not repeat the pass over the sampler; a seed does."""
    widths = entry("crude", wbits=[8, 6, 4], abits=[8, 32], policy=["uniform", "paper"])
    found = plan(quantizers=(widths,), seeds=(0, 1))
    assert 2 == len({planned.keys.calibrate for planned in found.cells})
    assert 2 * 12 == len({planned.keys.quantize for planned in found.cells})
    assert None not in {planned.keys.calibrate for planned in found.cells}


def test_a_metric_s_key_does_not_depend_on_its_neighbours(plan):
    """Adding a metric computes that one and no other again."""
    one = plan(metrics=(entry("bits"),)).cells[0].keys.evaluate
    two = plan(metrics=(entry("score"), entry("bits"))).cells[0].keys.evaluate
    assert one == two[1:]


@pytest.mark.parametrize("distribution", ["tiny-dist", "odd-dist"])
def test_another_version_of_a_plugin_moves_its_keys(plan, plugin_host, distribution):
    """The version of what made an artefact is part of its key."""
    before = plan()
    for info in plugin_host.folder.glob("*.dist-info"):
        text = (info / "METADATA").read_text()
        if f"Name: {distribution}\n" in text:
            (info / "METADATA").write_text(text.replace("1.0", "1.1"))
    after = plan()
    for label in ("FP / eager", "W8A8 / simulate"):
        one, other = cell_of(before, label), cell_of(after, label)
        moved = (one.keys.quantize, one.keys.sample) != (other.keys.quantize, other.keys.sample)
        assert moved == (distribution == "tiny-dist" or label != "FP / eager")


@pytest.mark.parametrize(
    "changes",
    [
        {"models": (entry("odd", file="data/a"),)},
        {"quantizers": (entry("crude", file="data/a"),)},
        {"backends": (entry("box", file="data/a"),)},
        {"metrics": (entry("score", file="data/a"),)},
    ],
)
def test_files_count_by_content(plan, tmp_path, changes):
    """Another folder with the same bytes is the same plan, with the same axes; other bytes move it.

    A model says itself what its files hold, in its digest.
    """
    for name in ("here", "there"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / "a").write_text("a")
    one, other = (plan(folder=tmp_path / name, **changes) for name in ("here", "there"))
    assert one.id == other.id
    assert [p.axes for p in one.cells] == [p.axes for p in other.cells]
    assert str(tmp_path) not in str([p.axes for p in one.cells])
    (tmp_path / "there" / "data" / "a").write_text("b")
    changed = plan(folder=tmp_path / "there", **changes)
    assert (one.id == changed.id) == ("models" in changes)


def test_files_are_handed_over_as_absolute_paths(plan, tmp_path):
    """What a factory gets does not depend on the folder the command was started in."""
    (tmp_path / "a").write_text("a")
    found = plan(metrics=(entry("score", file="a"),))
    assert str(tmp_path / "a") == found.metrics[0].options["file"]
