"""What a metric returns is valid, or the metric fails in words; nothing else of the cell is lost.

Each kind of wrong value was once stored, and the run folder could not be read any more, or a gate
let it pass.
"""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfq_bench.cli import main
from tfq_bench.errors import MetricError
from tfq_bench.foreign.text import printable
from tfq_bench.metrics.extractors import efficientnet_lite0
from tfq_bench.metrics.paired import feature_cosine
from tfq_bench.pipeline.values import checked_values
from tfq_bench.store.records import metric_from_json, metric_to_json
from tfq_bench.store.run import RunFolder
from tfq_bench.testing.fuzzing import fuzz
from tfq_bench.types import Interval, MetricDefinition, MetricValue

METRIC = """
import math
from dataclasses import replace

import numpy as np
import torch

from tfq_bench import api

GOOD = api.MetricValue(
    definition=api.MetricDefinition(
        name="score", unit="", direction="higher", summary="A score.", parameters={{"formula": 1}}
    ),
    value=1.0,
    n=4,
)


def other(**changes):
    return replace(GOOD, definition=replace(GOOD.definition, **changes))


class Mine:
    def evaluate(self, inputs):
        {body}
        return {values}


@api.hookimpl
def tfq_metrics():
    yield api.MetricProvider(name="mine", summary="", factory=f"{{__name__}}:Mine")
"""


def source(values="[GOOD]", body="pass"):
    """Source of a plugin whose metric returns this."""
    return METRIC.format(values=values, body=body)


@pytest.fixture
def run(plugin_host, tiny_suite, tmp_path, capfd):
    """A function that runs a suite with a metric of this source: exit code, output, records."""

    def call(text, *arguments, metrics=("mine", "paired", "bits"), **options):
        plugin_host.install("mine", text)
        folder = tmp_path / "run"
        suite = tiny_suite(metrics=metrics, **options)
        code = main(["run", str(suite), "--run", str(folder), "--no-report", *arguments])
        shown = capfd.readouterr()
        assert "Traceback" not in shown.out + shown.err
        return code, shown.out, RunFolder(folder).records()

    return call


def check_only_mine_failed(code, out, records, reason):
    """Exit code 3, the reason in words, and every number of the other metrics."""
    assert 3 == code
    failed = [r for r in records if r.status == "failed"]
    assert {("mine", "evaluate")} == {(r.failed_metric, r.stage) for r in failed}
    for record in failed:
        assert reason in record.reason, record.reason
        assert record.reason.isprintable()
        assert f"at evaluate, metric 'mine': {record.reason}" in out
    names = {r.metric.definition.name for r in records if r.metric is not None}
    assert {"psnr", "mean-weight-bits", "size-bytes"} <= names
    return failed


WRONG = [
    ("[replace(GOOD, value=float('nan'))]", "'score' is nan, which is not a finite number"),
    ("[replace(GOOD, value=-math.inf)]", "'score' is -inf, which is not a finite number"),
    ("[replace(GOOD, value='1')]", "'score' must be a number, found str '1'"),
    ("[replace(GOOD, value=torch.tensor(1.0))]", "must be a number, found Tensor"),
    ("[other(name=5)]", "a value's name must be text, found int 5"),
    ("[other(name='')]", "a value's name must not be empty"),
    ("[other(name='a\\n::error::b')]", "must be one printable line"),
    ("[other(name='\\ud800')]", "must be one printable line"),
    ("[other(direction='sideways')]", "direction must be one of lower, higher, none, found"),
    ("[other(unit=None)]", "unit must be text, found NoneType"),
    ("[other(parameters={'x': float('nan')})]", "parameters, x must be finite numbers"),
    ("[other(parameters={'x': object()})]", "parameters, x must be what JSON can say"),
    ("[other(parameters={1: 2})]", "parameters: keys must be text, found int 1"),
    ("[other(parameters={'x': np.zeros(2)})]", "must be what JSON can say"),
    ("[other(margin=math.inf)]", "margin is inf, which is not a finite number"),
    ("[other(margin=-1)]", "margin must be at least 0, found -1.0"),
    ("[other(volatile=1)]", "volatile must be true or false"),
    ("[replace(GOOD, n=0)]", "n must be a whole number of at least 1, found int 0"),
    ("[replace(GOOD, n=4.0)]", "n must be a whole number of at least 1, found float 4.0"),
    ("[GOOD, GOOD]", "two of its values are called 'score'; every name stands once"),
    ("None", "'evaluate' must return a tuple of MetricValue, found NoneType None"),
    ("[{'score': 1.0}]", "must return a tuple of MetricValue, found dict"),
    (
        "[replace(GOOD, interval=api.Interval(low=0, high=1, level=1.0, method='m'))]",
        "must lie between 0.5 and 1, found 1.0",
    ),
    (
        "[replace(GOOD, interval=api.Interval(low=0, high=1, level=0.05, method='m'))]",
        "the interval's level, its chance to hold the true value, must lie between 0.5 and 1",
    ),
    (
        "[replace(GOOD, interval=api.Interval(low=2, high=1, level=0.9, method='m'))]",
        "the interval's low end 2.0 is above its high end 1.0",
    ),
    (
        "[replace(GOOD, interval=api.Interval(low=-math.inf, high=1, level=0.9, method='m'))]",
        "the interval's low end is -inf",
    ),
    (
        "[replace(GOOD, replicates=(1.0, math.nan), pairing='p')]",
        "replicates, number 1 is nan",
    ),
    ("[replace(GOOD, replicates=(1.0, 2.0))]", "replicates need a pairing"),
    ("[replace(GOOD, series={'x': (math.inf,)})]", "curve 'x', number 0 is inf"),
    ("[replace(GOOD, reference='another-cell')]", "reference must be the cell's"),
]


def made(text):
    """The metric of a plugin with this source, without a run."""
    names = {"__name__": "mine"}
    exec(source(text), names)
    return names["Mine"]()


@pytest.mark.parametrize(("values", "reason"), WRONG)
def test_a_value_that_cannot_be_stored(values, reason):
    """It is refused in one line that says which value and why."""
    metric = made(values)
    with pytest.raises(MetricError) as refused:
        checked_values(metric.evaluate(None), reference=None)
    assert reason in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(("values", "reason"), WRONG[::6])
def test_a_run_with_a_value_that_cannot_be_stored(run, values, reason):
    """The metric fails, every other number is there, and the folder reads well."""
    check_only_mine_failed(*run(source(values)), reason)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise SystemExit(0)", "raised SystemExit: 0"),
        ("import asyncio; raise asyncio.CancelledError('x')", "raised CancelledError: x"),
        ("raise ValueError('a\\n::error::b\\x1b[31m')", "ValueError: a ::error::b\\x1b[31m"),
        ("raise api.MetricError('too dark.')", "too dark."),
    ],
)
def test_whatever_a_metric_raises_is_its_own(run, body, reason):
    """Also what is no `Exception`; the cell keeps its other numbers."""
    check_only_mine_failed(*run(source(body=body)), reason)


def test_a_metric_that_fails_in_a_worker(run, tmp_path, capfd):
    """The reasons come back from a fresh process too."""
    text = source(body="raise SystemExit(3)")
    check_only_mine_failed(*run(text), "raised SystemExit: 3")
    # The failed evaluations are all that is left for workers, which start slowly.
    command = ["run", str(tmp_path / "tiny.toml"), "--run", str(tmp_path / "run"), "--no-report"]
    code = main([*command, "--executor", "process"])
    out = capfd.readouterr().out
    check_only_mine_failed(code, out, RunFolder(tmp_path / "run").records(), "raised SystemExit: 3")


def test_a_metric_that_crashes_its_worker(run, tmp_path, capfd):
    """It costs its own numbers only: what the worker did not come to is done without it."""
    crash = "import os, sys; '--outcome' in sys.argv and os.kill(os.getpid(), 11); os.oops"
    text = source(body=crash)
    check_only_mine_failed(*run(text), "raised AttributeError")
    plan = RunFolder(tmp_path / "run").plan()
    at = [metric["name"] for metric in plan["metrics"]].index("bits")
    lost = plan["cells"][-1]["keys"]["evaluate"][at]  # of one cell, for workers start slowly
    shutil.rmtree(tmp_path / "run" / "artefacts" / "evaluate" / lost)
    command = ["run", str(tmp_path / "tiny.toml"), "--run", str(tmp_path / "run"), "--no-report"]
    code = main([*command, "--executor", "process"])
    out = capfd.readouterr().out
    reason = "lost its worker: its process was ended by signal 11"
    check_only_mine_failed(code, out, RunFolder(tmp_path / "run").records(), reason)


def test_the_next_run_tries_the_metric_again_and_nothing_else(run, tmp_path, capfd):
    """Status names it meanwhile; afterwards the failure is gone."""
    flag = tmp_path / "fixed"
    body = f"import pathlib; assert pathlib.Path({str(flag)!r}).exists(), 'not yet'"
    text = source(body=body)
    check_only_mine_failed(*run(text), "raised AssertionError: not yet")
    assert 0 == main(["status", str(tmp_path / "run")])
    assert "metric 'mine': raised AssertionError: not yet" in capfd.readouterr().out
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("artefacts/*/*")}
    flag.touch()
    assert 0 == main(
        ["run", str(tmp_path / "tiny.toml"), "--run", str(tmp_path / "run"), "--no-report"]
    )
    records = RunFolder(tmp_path / "run").records()
    assert {"ok"} == {record.status for record in records}
    assert 2 == sum(r.metric is not None and r.metric.definition.name == "score" for r in records)
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("artefacts/*/*")}
    assert {p: after[p] for p in before} == before
    assert 2 == len(after) - len(before)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("inputs.loaded.network.conv_in.weight.mul_(0.5)", "full-precision model was changed"),
        (
            "inputs.loaded.network.conv_in.weight.data.zero_(); raise ValueError('x')",
            "raised ValueError: x Before that, the full-precision model was changed",
        ),
        ("inputs.loaded.network.train()", "full-precision model was changed"),
        (
            "network = inputs.lowered().network\n"
            "        for t in (*network.parameters(), *network.buffers()): t.data.zero_()\n"
            "        raise ValueError('zeroed')",
            "raised ValueError: zeroed",
        ),
        ("torch.set_default_dtype(torch.float64); raise ValueError('x')", "x"),
        ("np.random.seed(0); torch.manual_seed(1); raise ValueError('x')", "x"),
    ],
)
def test_networks_and_settings_that_a_metric_leaves_changed(run, tmp_path, body, reason):
    """Metrics after it give what they give without it."""
    metrics = ("mine", "paired", "bits", "temporal", "trajectory")

    def numbers(records):
        return {
            (r.cell, r.metric.definition.name): (r.metric.value, r.metric.replicates)
            for r in records
            if r.metric is not None and not r.metric.definition.volatile
        }

    text = source(body=body)
    code, out, records = run(text, metrics=metrics)
    check_only_mine_failed(code, out, records, reason)
    folder = tmp_path / "without"
    suite = (tmp_path / "tiny.toml").read_text().replace('[[metric]]\nname = "mine"\n', "")
    (tmp_path / "without.toml").write_text(suite)
    assert 0 == main(["run", str(tmp_path / "without.toml"), "--run", str(folder), "--no-report"])
    found = numbers(RunFolder(folder).records())
    assert found == numbers(records)
    assert "trajectory-divergence" in {name for _, name in found}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("inputs.images[:] = 0", "read-only"),
        ("inputs.images.flags.writeable = True; inputs.images[:] = 0", "it wrote into the images"),
        ("torch.from_numpy(inputs.images).zero_()", "it wrote into the images of the cell"),
        (
            "torch.from_numpy(inputs.reference_images if inputs.reference_cell else inputs.images)"
            ".fill_(9)",
            "it wrote into the images of the ",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_images_that_a_metric_writes_into(run, tmp_path, body, reason):
    """The metrics after it see what was sampled: their numbers are those of a run without it."""
    text = source(body=body)
    code, out, records = run(text)
    check_only_mine_failed(code, out, records, reason)
    images = {
        r.cell: [r.metric.value] for r in records if r.metric and r.metric.definition.name == "psnr"
    }
    (cell,) = images
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    keys = {c["key"]: c["keys"]["sample"] for c in plan["cells"]}
    (full,) = keys.keys() - {cell}
    assert images[cell] == [pytest.approx(_psnr(tmp_path, keys[cell], keys[full]), abs=1e-9)]


def _psnr(tmp_path, mine, other):
    """Mean PSNR from the stored images, by its definition in float64."""
    from safetensors.numpy import load_file

    def images(keys):
        folder = tmp_path / "run" / "artefacts" / "sample"
        return np.concatenate(
            [
                load_file(next(folder.glob(f"{key}*")) / "images.safetensors")["images"]
                for key in keys
            ]
        ).astype(np.float64)

    errors = ((images(mine) - images(other)) ** 2).mean(axis=(1, 2, 3))
    return float(
        np.mean([100.0 if e == 0 else min(100.0, 10 * math.log10(255**2 / e)) for e in errors])
    )


def test_features_of_images_that_a_metric_writes_into_are_not_kept(run, tmp_path):
    """They are shared: the next metric would get features of what was never sampled."""
    body = (
        "from tfq_bench.metrics.extractors import efficientnet_lite0\n"
        "        from tfq_bench.metrics.features import cell_features\n"
        "        torch.from_numpy(inputs.images).zero_()\n"
        "        cell_features(inputs, efficientnet_lite0())"
    )
    text = source(body=body)
    code, out, records = run(text, steps=1, images=2)
    check_only_mine_failed(code, out, records, "it wrote into the images of the cell")
    (cosine,) = [r for r in records if r.metric and "feature-cosine" == r.metric.definition.name]
    network = efficientnet_lite0()
    folder = RunFolder(tmp_path / "run")
    own, other = (
        network.features(folder.images(cell), device="cpu")
        for cell in (cosine.cell, cosine.metric.reference)
    )
    assert cosine.metric.value == pytest.approx(feature_cosine(own, other).mean(), abs=1e-9)
    assert cosine.metric.value < 1.0


def test_features_that_are_not_finite_name_the_image(reference):
    """A metric of features never sees them; the first image is named."""
    from tfq_bench.metrics.features import cell_features, cell_logits
    from tfq_bench.testing.inputs import TinyInputs

    class Broken:
        name, protocol = "broken", {"x": 1}

        def features(self, images, *, device):
            rows = np.zeros((len(images), 3), np.float32)
            rows[5, 1] = np.nan
            return rows

        logits = features

    inputs = TinyInputs(images=8)
    for compute in (cell_features, cell_logits):
        with pytest.raises(MetricError, match="image 5 of the cell features that are not finite"):
            compute(inputs, Broken())
    with pytest.raises(MetricError, match="image 5 of the full-precision cell"):
        cell_features(inputs, Broken(), of="reference")


@pytest.mark.parametrize(
    ("metric", "images", "least"),
    [("kernel-distance", 4, 5), ("precision-recall", 4, 5), ("frechet", 1, 2)],
)
def test_too_few_images_are_told_in_the_plan(tiny_suite, capsys, metric, images, least):
    """Not after hours of sampling, and never as an interval of infinite width."""
    if images >= 2:  # a suite has no fewer
        suite = str(tiny_suite(metrics=(metric,), images=images))
        assert 2 == main(["plan", suite])
        said = capsys.readouterr().err
        assert f"metric '{metric}' (tfq-bench==" in said
        assert "Raise 'images' under [sampling]" in said
    assert 0 == main(["plan", str(tiny_suite(metrics=(metric,), images=least))])
    out = capsys.readouterr().out
    assert ("covariance has rank 1 at most" in out) == (metric == "frechet")


def test_the_least_number_of_images_of_a_kernel_distance():
    """It is the first at which every resample of the interval holds two different images."""
    from tfq_bench.metrics.kernel_distance import LEAST
    from tfq_bench.stats.intervals import REPLICATES, bootstrap_counts

    def resamples_without_pairs(n):
        return int((bootstrap_counts(n, REPLICATES).max(axis=1) == n).sum())

    assert resamples_without_pairs(LEAST - 1) > 0
    assert all(resamples_without_pairs(n) == 0 for n in range(LEAST, 200))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_intervals_of_numbers_that_are_not_finite(bad):
    """There is none, and it is said; never one of infinite or unknown width."""
    from tfq_bench.stats import intervals

    for call in (
        lambda: intervals.normal_interval(1.0, [1.0, bad, 2.0]),
        lambda: intervals.normal_interval(bad, [1.0, 2.0]),
        lambda: intervals.mean_value(np.array([1.0, 2.0, bad])),
        lambda: intervals.median_interval([1.0, bad, 2.0]),
        lambda: intervals.jackknife_interval(1.0, [bad, 2.0]),
    ):
        with pytest.raises(MetricError, match="needs finite numbers"):
            call()


def test_psnr_of_equal_images_is_a_number():
    """An infinite ratio has the value that its definition names, and rules understand it."""
    from tfq_bench.metrics.paired import PSNR_CAP, psnr

    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    other = images.copy()
    other[1, 0, 0, 0] ^= 1
    one_level = 10 * math.log10(255**2 * images[0].size)
    assert psnr(images, other).tolist() == pytest.approx([PSNR_CAP, one_level, PSNR_CAP])


GOOD = MetricValue(
    definition=MetricDefinition(
        name="score", unit="dB", direction="lower", summary="s", parameters={"formula": 1}
    ),
    value=2.0,
    n=3,
    interval=Interval(low=1.0, high=3.0, level=0.95, method="m"),
    replicates=(1.5, 2.5),
    pairing="p",
    series={"curve": (1.0, 2.0)},
)
ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.characters(categories=["Cs", "Cc"]),
    st.binary(max_size=3),
    st.lists(st.floats(), max_size=3),
    st.tuples(st.floats(), st.floats()),
    st.dictionaries(st.text(max_size=3), st.floats(), max_size=2),
    st.recursive(st.floats(), lambda inner: st.lists(inner, max_size=2), max_leaves=20),
    st.sampled_from(
        [10**400, np.float32(1.5), np.int64(3), np.arange(3.0), object(), range(3), 1j]
    ),
)
PLACES = {
    "value": (
        "value",
        "n",
        "interval",
        "replicates",
        "pairing",
        "reference",
        "series",
        "definition",
    ),
    "definition": ("name", "unit", "direction", "summary", "parameters", "volatile", "margin"),
    "interval": ("low", "high", "level", "method"),
}


def mutated(value, place, field, content):
    """`value` with one field, of itself or of a part, replaced by `content`."""
    if place == "value":
        return replace(value, **{field: content})
    return replace(value, **{place: replace(getattr(value, place), **{field: content})})


@fuzz(400)
@given(
    changes=st.lists(
        st.sampled_from(
            [(place, field) for place, fields in PLACES.items() for field in fields]
        ).flatmap(lambda spot: st.tuples(st.just(spot), ANY)),
        min_size=1,
        max_size=3,
    ),
    reference=st.sampled_from([None, "cell"]),
)
def test_fuzz_values_are_stored_well_or_refused_in_words(changes, reference):
    """Whatever passes reads back from strict JSON as what it was, and is finite."""
    value = GOOD
    for (place, field), content in changes:
        if place != "value" and not isinstance(getattr(value, place), type(getattr(GOOD, place))):
            continue  # the part itself was replaced before
        value = mutated(value, place, field, content)
    kept = refusal = None
    try:
        (kept,) = checked_values((value,), reference=reference)
    except MetricError as error:
        refusal = str(error)
    if kept is None:
        assert refusal
        assert refusal == printable(refusal, 1000)
        return
    line = json.dumps(metric_to_json(kept), allow_nan=False).encode()
    assert metric_from_json(json.loads(line)) == kept
    numbers = [kept.value, *kept.replicates, *(x for curve in kept.series.values() for x in curve)]
    if kept.interval is not None:
        numbers += [kept.interval.low, kept.interval.high, kept.interval.level]
        assert kept.interval.low <= kept.interval.high
    assert all(type(x) is float and math.isfinite(x) for x in numbers)
    assert type(kept.n) is int
    assert kept.n >= 1
    assert kept.definition.name
    assert kept.definition.name.isprintable()
    assert kept.definition.direction in ("lower", "higher", "none")
    assert kept.reference in (None, reference)
