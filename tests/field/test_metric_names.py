"""Two numbers of a cell never share a name: refused in `plan`, in words, before any work.

Silence was the fault: one of two numbers vanished from records, table, baseline and gate.
"""

import json
import shutil

import pytest

from tfq_bench.cli import main
from tfq_bench.store.run import RunFolder

METRIC = """
from tfq_bench import api


class Mine:
    def __init__(self, *, label=None, file="", scale=1.0):
        self.scale = scale

    {extra}

    def evaluate(self, inputs):
        definition = api.MetricDefinition(
            name={name!r}, unit="", direction="none", summary="", parameters={{}}
        )
        return (api.MetricValue(definition=definition, value=self.scale, n=4),)


@api.hookimpl
def tfq_metrics():
    yield api.MetricProvider(
        name={provider!r},
        summary="",
        factory=f"{{__name__}}:Mine",
        options=(
            api.Option(name="file", kind="path", default="", help="A file."),
            api.Option(name="scale", kind="float", default=1.0, help="The value."),
        ),
    )
"""


def metric(name, *, provider="mine", said=True):
    """Source of a plugin whose metric reports `name`, and says so beforehand or does not."""
    extra = f"names = ({name!r},)" if said else "pass"
    return METRIC.format(name=name, provider=provider, extra=extra)


@pytest.fixture
def plan(tiny_suite, capsys):
    """A function that plans a suite: exit code and everything that was said."""

    def call(more, **options):
        code = main(["plan", str(tiny_suite(metrics=("bits", "paired"), more=more, **options))])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return code, shown.out + shown.err

    return call


@pytest.mark.parametrize("name", ["psnr", "ssim", "size-bytes", "mean-weight-bits"])
def test_a_built_in_name_that_another_distribution_takes(plugin_host, plan, name):
    """Both metrics and both distributions are named."""
    plugin_host.install("mine", metric(name), distribution="rival-dist")
    code, said = plan('[[metric]]\nname = "mine"\n')
    assert 2 == code
    assert f"both report '{name}'" in said
    assert "'mine' (rival-dist==1.0)" in said
    assert "(tfq-bench==" in said
    assert "label" in said


def test_two_distributions_that_take_one_name(plugin_host, plan):
    """Also when neither is the host, and their providers have other names."""
    plugin_host.install("one", metric("score", provider="one"), distribution="one-dist")
    plugin_host.install("two", metric("score", provider="two"), distribution="two-dist")
    code, said = plan('[[metric]]\nname = "one"\n[[metric]]\nname = "two"\n')
    assert 2 == code
    assert "'one' (one-dist==1.0) and metric 'two' (two-dist==1.0) both report 'score'" in said


def test_one_metric_with_two_reference_sets(plan, tmp_path, reference):
    """The options that differ are named, and what to write."""
    shutil.copy(reference, tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(reference.read_bytes() + b"other")
    tables = "".join(
        f'[[metric]]\nname = "kernel-distance"\nreference = "{name}.safetensors"\n' for name in "ab"
    )
    code, said = plan(tables, images=8)
    assert 2 == code
    assert "both report 'kd-efficientnet-lite0'" in said
    assert "they differ in reference = " in said
    assert "a.safetensors" in said
    assert "b.safetensors" in said
    assert 'label = "second"' in said


@pytest.mark.parametrize(
    "options", ["scale = 2.0", 'file = "tiny.toml"', 'scale = 3\nfile = "tiny.toml"']
)
def test_one_foreign_metric_with_two_options(plugin_host, plan, options):
    """An option that is not in the definition changes the number all the same."""
    plugin_host.install("mine", metric("score"))
    code, said = plan(f'[[metric]]\nname = "mine"\n[[metric]]\nname = "mine"\n{options}\n')
    assert 2 == code
    assert "both report 'score'" in said
    assert f"they differ in {'file' if 'file' in options else 'scale'} = " in said


def test_names_that_are_said_are_believed(plugin_host, plan):
    """`names` counts before anything is evaluated."""
    taken = metric("score").replace("names = ('score',)", "names = ('psnr',)")
    plugin_host.install("mine", taken)
    code, said = plan('[[metric]]\nname = "mine"\n')
    assert 2 == code
    assert "both report 'psnr'" in said


def test_equal_content_under_two_paths_is_one_metric(plugin_host, plan, tmp_path):
    """Copies of a file do not make a second number of it."""
    plugin_host.install("mine", metric("score"))
    for name in "ab":
        (tmp_path / name).write_text("same")
    tables = "".join(
        f'[[metric]]\nname = "mine"\nfile = "{name}"\nlabel = "{name}"\n' for name in "ab"
    )
    code, said = plan(tables)
    assert 2 == code
    assert "asks twice for the metric 'mine' with equal options" in said


@pytest.mark.parametrize("label", ['"a b"', "5", '""', '"[x]"', '"a\\nb"', '"*"', "true"])
def test_a_label_that_is_no_name(plugin_host, plan, label):
    """What stands in names of records must be plain; an empty label is none."""
    plugin_host.install("mine", metric("score"))
    code, said = plan(f'[[metric]]\nname = "mine"\nlabel = {label}\n')
    if label == '""':
        assert 0 == code
    else:
        assert 2 == code
        assert "'label' stands behind the names of its values" in said


def test_two_labels_that_are_equal(plugin_host, plan):
    """A label helps only when it tells the two apart."""
    plugin_host.install("mine", metric("score"))
    tables = "".join(
        f'[[metric]]\nname = "mine"\nscale = {scale}\nlabel = "x"\n' for scale in (1, 2)
    )
    code, said = plan(tables)
    assert 2 == code
    assert "both report 'score:x'" in said


@pytest.fixture
def run(tiny_suite, tmp_path, capfd):
    """A function that runs a suite: exit code, output, and the records."""

    def call(more, metrics=("bits", "paired"), **options):
        folder = tmp_path / "run"
        suite = tiny_suite(metrics=metrics, more=more, **options)
        code = main(["run", str(suite), "--run", str(folder), "--no-report"])
        shown = capfd.readouterr()
        assert "Traceback" not in shown.err
        return code, shown.out, RunFolder(folder).records()

    return call


def test_with_a_label_both_stand_side_by_side(plugin_host, run, tmp_path):
    """In the table, in the records, and with definitions that never compare."""
    plugin_host.install("mine", metric("score"))
    more = '[[metric]]\nname = "mine"\n[[metric]]\nname = "mine"\nscale = 2\nlabel = "double"\n'
    code, out, records = run(more)
    assert 0 == code
    assert "score" in out.split()
    assert "score:double" in out.split()
    found = {}
    for record in records:
        if record.metric is not None and record.metric.definition.name.startswith("score"):
            found.setdefault(record.metric.definition.name, set()).add(record.metric.value)
    assert {"score": {1.0}, "score:double": {2.0}} == found
    assert 2 == len(
        {
            r.definition
            for r in records
            if r.definition
            and r.metric.value in (1.0, 2.0)
            and r.metric.definition.name.startswith("score")
        }
    )
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert ["", "", "", "double", ""] == [metric["label"] for metric in plan["metrics"]]


def test_a_label_computes_its_own_metric_only(plugin_host, run, tmp_path):
    """Every other number is there already."""
    plugin_host.install("mine", metric("score"))
    run('[[metric]]\nname = "mine"\n')
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("artefacts/*/*")}
    code, _, records = run('[[metric]]\nname = "mine"\nlabel = "x"\n')
    assert 0 == code
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("artefacts/*/*")}
    assert {p: after[p] for p in before} == before
    assert 2 == len(after) - len(before)  # of both cells
    assert "score:x" in {r.metric.definition.name for r in records if r.metric is not None}


def test_names_that_nobody_could_know_before(plugin_host, run):
    """A metric that does not say the names of its values does not silence another: it fails."""
    plugin_host.install("mine", metric("psnr", said=False))
    code, out, records = run('[[metric]]\nname = "mine"\n')
    assert 3 == code
    assert "failed: tiny / rtn W8A8 / simulate at evaluate, metric 'mine'" in out
    assert "'psnr' is reported by metric 'paired'" in out
    psnr = [r.metric for r in records if r.metric and r.metric.definition.name == "psnr"]
    assert 1 == len(psnr)
    assert "dB" == psnr[0].definition.unit


MODEL = """
from tfq_bench import api
from tfq_bench.testing.tiny import TinyModel


class Model(TinyModel):
    def __init__(self, *, weights):
        super().__init__(weights_seed=len(weights))
        self.digest += weights


@api.hookimpl
def tfq_models():
    yield api.ModelProvider(
        name="twin",
        summary="",
        factory=f"{__name__}:Model",
        options=(api.Option(name="weights", kind="str", default="minmax", help="Any."),),
    )
"""


def labels(text, plugin_host, tmp_path):
    """The labels of a planned suite of the model `twin`."""
    from tfq_bench.plan.planner import make_plan
    from tfq_bench.plan.suite import parse_suite

    head = 'schema = 1\nsuite.name = "x"\nmetric = [{name = "bits"}]\n'
    plan = make_plan(parse_suite(head + text, "x.toml", tmp_path), plugin_host.discover())
    found = [planned.cell.label for planned in plan.cells]
    assert len(found) == len({planned.cell.key for planned in plan.cells})
    return found


@pytest.mark.parametrize(
    "tables",
    [
        # one option name of two components, the same value
        'model = [{name = "twin"}, {name = "twin", weights = "mse"}]\n'
        'quantizer = [{name = "rtn"}, {name = "rtn", weights = "mse"}]\n',
        # values that read like two options
        'model = [{name = "twin", weights = "a, b=c"}, {name = "twin", weights = "a"}]\n'
        'quantizer = [{name = "rtn"}]\n',
        # values that print alike
        'model = [{name = "twin", weights = "a b"}, {name = "twin", weights = "a  b"}]\n'
        'quantizer = [{name = "rtn"}]\n',
        'model = [{name = "twin", weights = "\\u001b"}, {name = "twin", weights = "\\\\x1b"}]\n'
        'quantizer = [{name = "rtn"}]\n',
    ],
)
def test_cells_that_differ_have_labels_that_differ(plugin_host, tmp_path, tables):
    """Whatever their options are called and say; and a label is one printable line."""
    plugin_host.install("twin", MODEL)
    found = labels(tables + 'backend = [{name = "simulate"}]\n', plugin_host, tmp_path)
    assert len(found) == len(set(found))
    assert all(label.isprintable() for label in found)
