"""A tool that quantizes and executes by itself runs in a suite like a cell, and is called one."""

import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tfq_bench.cli import main
from tfq_bench.errors import BrokenPlugin, TfqError
from tfq_bench.pipeline.cell_context import CellContext
from tfq_bench.pipeline.evaluate import stored_images
from tfq_bench.pipeline.run import execute_task
from tfq_bench.pipeline.tasks import tasks_of
from tfq_bench.providers import QuantizerProvider
from tfq_bench.store.run import RunFolder
from tfq_bench.testing.contracts import ContestantContract
from tfq_bench.types import Scheme

SOURCE = Path(__file__).parents[1] / "crude_tool.py"
TOOL = '[[quantizer]]\nname = "crude-tool"\nwbits = {wbits}\nfault = "{fault}"\n'
WITHOUT_RTN = '[[exclude]]\nquantizer = "rtn"\nreason = "time"\n'
METRICS = ("paired", "timing", "bits", "kernels", "temporal", "trajectory", "cost")
LABEL = "tiny / crude-tool W8A32 (own) / external"


def module(name="crude_tool_here"):
    """The plugin's module, imported from its file."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, SOURCE)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


class TestCrudeTool(ContestantContract):
    """A plain tool keeps the contestant contract."""

    schemes = (Scheme(wbits=8, policy="own"), Scheme(wbits=4, policy="own"))

    def make(self, scheme):
        return module().CrudeTool(scheme=scheme)


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("nothing", "test_the_product_is_enough"),
        ("idle", "test_layers_say_how_they_run"),
        ("silent", "test_layers_say_how_they_run"),
        ("stranger", "test_layers_say_how_they_run"),
        ("nan", "test_layers_say_how_they_run"),
        ("shape", "test_layers_say_how_they_run"),
        ("global", "test_model_data_and_global_generator_are_left_alone"),
        ("edit", "test_model_data_and_global_generator_are_left_alone"),
        ("missing", "test_what_runs_has_versions"),
    ],
)
def test_contestant_that_breaks_the_contract_fails(fault, test, tmp_path):
    """Whatever a run would refuse, the contract finds first."""

    class Contract(ContestantContract):
        def make(self, scheme):
            return module().CrudeTool(scheme=scheme, fault=fault)

    check = getattr(Contract(), test)
    with pytest.raises((AssertionError, TfqError)):
        check() if "versions" in test else check(tmp_path)


@pytest.fixture
def start(tiny_suite, plugin_host, tmp_path, capfd):
    """A function that runs a tiny suite with the tool: exit code, output, the run folder."""
    plugin_host.install("tool", SOURCE.read_text("utf-8"), distribution="crude-dist")

    def run(*arguments, fault="", wbits="[8, 4]", command="run", metrics=METRICS):
        suite = tiny_suite(metrics=metrics, more=TOOL.format(fault=fault, wbits=wbits))
        given = ["--no-report"] if command == "run" else []
        code = main([command, str(suite), "--run", str(tmp_path / "run"), *given, *arguments])
        shown = capfd.readouterr()
        return code, shown.out + shown.err, RunFolder(tmp_path / "run")

    return run


def numbers(folder, label):
    """Values of a cell by name, and its last record."""
    records = [record for record in folder.records() if record.label == label]
    return {r.metric.definition.name: r.metric for r in records if r.metric}, records[-1]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the run of `finished` is kept."""
    return tmp_path_factory.mktemp("kept") / "run"


@pytest.fixture
def finished(start, kept, tmp_path):
    """The folder of a finished run with every metric, which is made once and copied."""
    if not kept.exists():
        assert 0 == start()[0]
        (tmp_path / "run").rename(kept)
    return RunFolder(shutil.copytree(kept, tmp_path / "run"))


def test_cell_is_called_external(finished):
    """One cell a scheme, without a backend; records name the tools that quantized and executed."""
    values, record = numbers(finished, LABEL)
    assert ("external", "own") == (record.execution, record.axes["policy"])
    assert {"crude-dist==1.0", "crude-engine==2.5", "crude-rounding==1.0"} <= set(record.plugins)
    assert {"psnr", "latency-ms", "trajectory-divergence", "calibration-seconds"} <= set(values)
    (planned,) = (cell for cell in finished.plan()["cells"] if cell["label"] == LABEL)
    facts = finished.artefacts.result("lower", planned["keys"]["lower"])
    assert {"rounding": "nearest"} == facts["details"]["settings"]
    assert 0 < facts["external"]["distance"] < 0.1
    assert facts["external"]["macs"] == sum(use["macs"] for use in facts["kernels"])


def test_numbers_that_need_a_state_are_left_out(finished):
    """No temporal features, no parity, no memory of an engine that torch does not see."""
    values, _ = numbers(finished, LABEL)
    left_out = {"temporal-error", "parity-rms", "packed-bytes", "size-bytes", "peak-memory-bytes"}
    assert not left_out & set(values)
    assert 8.0 == values["mean-weight-bits"].value
    assert 0.0 == values["mac-share-low-bit"].value  # its activations are float
    full, _ = numbers(finished, "tiny / fp FP / eager")
    assert 0 < values["file-bytes"].value < 1.5 * full["size-bytes"].value
    assert values["mean-weight-bits"].definition == full["mean-weight-bits"].definition


def test_wider_weights_come_closer(finished):
    """From the same noise, 8 bits are closer to full precision than 4: it really is measured."""
    labels = (LABEL, LABEL.replace("W8", "W4"))
    eight, four = (numbers(finished, label)[0]["psnr"].value for label in labels)
    assert eight > four


def test_everything_compares(finished, capfd):
    """What is counted otherwise has a name of its own, so a comparison with the others is whole."""
    assert 0 == main(["compare", str(finished.path)])
    assert "do not compare" not in "".join(capfd.readouterr())


def test_gate_holds_a_tool_to_its_baseline(start, plugin_host, tmp_path, capfd):
    """A tool passes against its own numbers; a version that rounds coarser fails the build."""
    path = str(tmp_path / "baseline.json")
    folder = start(wbits="8", metrics=("paired",))[2].path
    gate = ["gate", str(folder), "--baseline", path]
    assert 0 == main(["baseline", "save", str(folder), "-o", path])
    assert 0 == main(gate)
    coarser = SOURCE.read_text("utf-8").replace("2 ** (self.scheme.wbits - 1) - 1", "10")
    plugin_host.install("tool", coarser, distribution="crude-dist")
    assert 0 == start(wbits="8", metrics=("paired",))[0]
    assert 1 == main(gate)
    out = capfd.readouterr().out
    assert re.search(rf"^regressed +{re.escape(LABEL)} +psnr ", out, re.MULTILINE)
    assert not re.search("^regressed .* rtn", out, re.MULTILINE)


def test_finished_run_is_found_finished(finished, start):
    """The same command computes nothing again."""
    assert "nothing to compute" in start()[1]
    assert len(finished.records()) == len(start()[2].records())


def test_nothing_but_the_product_goes_from_task_to_task(project, plugin_host):
    """A context of its own for every task, as in processes of their own, gives the same images."""
    plugin_host.install("tool", SOURCE.read_text("utf-8"), distribution="crude-dist")
    more = TOOL.format(fault="", wbits="8") + WITHOUT_RTN
    images = []
    for alone in (False, True):
        found = project(name=f"run-{alone}", metrics=("paired",), more=more)
        context = found.context
        for task in tasks_of(found.plan):
            if alone:
                context = CellContext(found.plan, found.table, found.folder.artefacts)
            assert execute_task(context, task, found.folder, lambda *_: None).reason is None
        cell = next(p for p in found.plan.cells if p.execution == "external")
        images.append(stored_images(context, cell))
    assert np.array_equal(*images)


def test_missing_tool_is_a_sentence_in_the_plan(start):
    """The cell is skipped with the command that installs it; the others run."""
    code, shown, _ = start(fault="missing", command="plan", wbits="8")
    assert 0 == code
    assert re.search(
        r"skipped: .*crude-tool W8A32 \(own\).*pip install 'crude-dist\[engine\]'", shown
    )
    assert "Traceback" not in shown
    code, shown, folder = start(fault="missing", wbits="8")
    assert 0 == code
    assert "Traceback" not in shown
    skipped = [record for record in folder.records() if record.status == "skipped"]
    assert ["external"] == [record.execution for record in skipped]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("nothing", "found nothing there"),
        ("idle", "quantized nothing of this network"),
        ("silent", "promised did not run"),
        ("stranger", "expected a layer of the model's topology"),
        ("nan", "not finite"),
        ("edit", "full-precision model was changed"),
    ],
)
def test_what_a_tool_says_is_looked_at(start, fault, reason):
    """A tool that did nothing, or says what is not so, fails its cell alone."""
    code, _, folder = start(fault=fault, wbits="8", metrics=("paired",))
    assert 3 == code
    failed = [record for record in folder.records() if record.status == "failed"]
    assert [LABEL] == [record.label.replace(f" [fault={fault}]", "") for record in failed]
    assert reason in failed[0].reason


def test_version_of_a_tool_is_part_of_the_key(start, plugin_host):
    """Another version of the engine is another cell; calibration is shared."""

    def keys():
        shown = json.loads(start("--json", command="plan", wbits="8")[1])
        return next(cell["keys"] for cell in shown["cells"] if cell["execution"] == "external")

    before = keys()
    source = SOURCE.read_text("utf-8")
    plugin_host.install(
        "tool", source.replace("engine==2.5", "engine==2.6"), distribution="crude-dist"
    )
    after = keys()
    assert before["quantize"] != after["quantize"]


def test_no_common_policy():
    """A tool cannot say that it follows the policy under which methods are compared."""
    with pytest.raises(BrokenPlugin, match=r"expected 'own' or 'own-\.\.\.', found 'uniform'"):
        QuantizerProvider(name="x", summary="", factory="a:B", external=True)
