"""A change moves the keys of the stages that it can influence, and no other."""

import pytest

from tfq_bench.errors import AssetError
from tfq_bench.plan.suite import Entry, Exclude


def entry(name, *, optional=False, **given):
    """One `[[...]]` table."""
    return Entry(name=name, optional=optional, given=given)


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
def test_what_moves_a_key(small_plan, tmp_path, changes, expected, of_full):
    """A change of the suite moves the keys of the stages that it can influence, and no other."""
    (tmp_path / "a").write_text("a")

    def found(**changes):
        cells = small_plan(**{**SMALL, **changes}).cells
        full = next((p for p in cells if p.execution == "full-precision"), None)
        return full, next(p for p in cells if p is not full)

    before, after = found(), found(**changes)
    for one, other, moved in zip(before, after, (of_full, expected), strict=True):
        if moved is None:
            assert other is None
            continue
        one, other = stages(one), stages(other)
        assert moved == {stage for stage in one if one[stage] != other[stage]}


def test_more_images_find_the_first_ones_done(small_plan):
    """Whole shards keep their keys when images are added; the cell keeps its key."""
    few, many = small_plan(sampling={"images": 4}), small_plan(sampling={"images": 7})
    for one, other in zip(few.cells, many.cells, strict=True):
        assert one.keys.sample == other.keys.sample[:2]
        assert 4 == len(set(other.keys.sample))


def test_all_widths_share_one_calibration(small_plan):
    """Bits, policies and backends do not repeat the pass over the sampler; a seed does."""
    widths = entry("crude", wbits=[8, 6, 4], abits=[8, 32], policy=["uniform", "paper"])
    found = small_plan(quantizers=(widths,), seeds=(0, 1))
    assert 2 == len({planned.keys.calibrate for planned in found.cells})
    assert 2 * 12 == len({planned.keys.quantize for planned in found.cells})
    assert None not in {planned.keys.calibrate for planned in found.cells}


def test_a_metric_s_key_does_not_depend_on_its_neighbours(small_plan):
    """Adding a metric computes that one and no other again."""
    one = small_plan(metrics=(entry("bits"),)).cells[0].keys.evaluate
    two = small_plan(metrics=(entry("score"), entry("bits"))).cells[0].keys.evaluate
    assert one == two[1:]


@pytest.mark.parametrize("distribution", ["tiny-dist", "odd-dist"])
def test_another_version_of_a_plugin_moves_its_keys(small_plan, plugin_host, distribution):
    """The version of what made an artefact is part of its key."""
    before = small_plan()
    for info in plugin_host.folder.glob("*.dist-info"):
        text = (info / "METADATA").read_text()
        if f"Name: {distribution}\n" in text:
            (info / "METADATA").write_text(text.replace("1.0", "1.1"))
    after = small_plan()
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
def test_files_count_by_content(small_plan, tmp_path, changes):
    """Another folder with the same bytes is the same plan, with the same axes; other bytes move it.

    Also of a model whose digest forgets the file.
    """
    for name in ("here", "there"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / "a").write_text("a")
    one, other = (small_plan(folder=tmp_path / name, **changes) for name in ("here", "there"))
    assert one.id == other.id
    assert [p.axes for p in one.cells] == [p.axes for p in other.cells]
    assert str(tmp_path) not in str([p.axes for p in one.cells])
    (tmp_path / "there" / "data" / "a").write_text("b")
    changed = small_plan(folder=tmp_path / "there", **changes)
    assert one.id != changed.id


def test_one_metric_with_two_options(small_plan, tmp_path):
    """Metrics that differ in an option have keys of their own."""
    (tmp_path / "a").write_text("a")
    found = small_plan(metrics=(entry("score"), entry("score", file="a")))
    assert 3 == len(set(found.cells[0].keys.evaluate))  # with `sanity`


def test_models_of_one_content_are_no_twins(small_plan):
    """Two models of one plugin may share weights and still be two."""
    found = small_plan(models=(entry("odd"), entry("even")), quantizers=(entry("fp"),))
    assert 2 == len({planned.cell.key for planned in found.cells})


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": (entry("score", file="absent"),)},
        {"metrics": (entry("score", file="nul\0"),)},
        {"quantizers": (entry("crude", file="absent"),)},
        {"backends": (entry("box", file="absent"),)},
    ],
)
def test_an_option_that_names_no_file(small_plan, tmp_path, changes):
    """The sentence has the option, the path as it was understood, and the rule behind it."""
    with pytest.raises(AssetError) as caught:
        small_plan(**changes)
    sentence = str(caught.value)
    assert f"option 'file' names {str(tmp_path)!r}"[:-1] in sentence
    assert "cannot be read: " in sentence
    assert sentence.endswith("a relative one starts at the suite's folder.")


WRAPPER = """
from tfq_bench import api


@api.hookimpl
def tfq_quantizers():
    yield api.QuantizerProvider(
        name="outer", summary="Changes.", factory=f"{__name__}:Outer", wraps=True,
        options=(api.Option(name="strength", kind="int", default=1, help="How much."),),
    )


class Outer:
    pass
"""


def test_a_pair_of_quantizers_depends_on_both(small_plan, plugin_host):
    """On the code, version and options of either, and records name the plugins of both."""

    def found(**given):
        quantizers = (entry("fp"), entry("outer+rtn", wbits=4, abits=8, **given))
        return small_plan(quantizers=quantizers, backends=(entry("simulate"),))

    plugin_host.install("outer", WRAPPER, distribution="outer-dist", version="1.0")
    plan = found()
    cell = cell_of(plan, "/ outer+rtn W4A8 / simulate")
    assert any(name.startswith("outer-dist==") for name in cell.plugins)
    assert any(name.startswith("tfq-bench==") for name in cell.plugins)
    made_of = [plan.ingredients[name] for name in cell.made_of["quantize"]]
    (own,) = (facts for facts in made_of if facts["what"] == "quantizer 'outer+rtn'")
    assert {"version of outer-dist", "version of tfq-bench"} <= own.keys()
    assert {"option strength", "option split"} <= own.keys()
    assert any(name.startswith("code of throwaway") for name in own)
    for given in ({"strength": 2}, {"split": True}):
        other = cell_of(found(**given), "/ outer+rtn W4A8 / simulate")
        assert cell.keys.quantize != other.keys.quantize
