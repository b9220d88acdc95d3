"""The entry point is light, a missing tool is a sentence, and a suite runs with all of them."""

import importlib
import importlib.metadata
import subprocess
import sys

import pytest

from tfq_bench.api import LoweringError, Scheme
from tfq_bench.cli import main
from tfq_bench.store import RunFolder
from tfq_bench_peers.packages import installed
from tfq_bench_peers.plugin import tfq_quantizers

SUITE = """\
schema = 1

[suite]
name = "cut"
threads = 1

[sampling]
steps = 2
images = 4
batch = 4

[calibration]
images = 2
batch = 2

[timing]
batch = 1
warmup = 0
rounds = 3

[[model]]
name = "tiny"

[[quantizer]]
name = "fp"

[[quantizer]]
name = "nncf"
samples = 4

[[quantizer]]
name = "torchao"

[[quantizer]]
name = "quanto"
abits = [8, 32]
samples = 4

[[metric]]
name = "paired"

[[metric]]
name = "timing"

[[metric]]
name = "bits"

[[metric]]
name = "kernels"
"""


@pytest.fixture
def command(plugin_host, tmp_path, capfd):
    """A function that calls `tfq-bench` with the suite: exit code and what was shown."""
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    plugin_host.install("peers", "tfq_bench_peers.plugin", distribution="tfq-bench-peers")
    suite = tmp_path / "cut.toml"
    suite.write_text(SUITE)

    def call(verb, *arguments):
        code = main([verb, str(suite), "--run", str(tmp_path / "run"), *arguments])
        shown = capfd.readouterr()
        return code, shown.out + shown.err

    return call


def test_entry_point_imports_no_torch():
    """Listing plugins must stay cheap."""
    code = "import sys, tfq_bench_peers.plugin; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "False" == done.stdout.strip()


def test_factories_import_no_tool():
    """A plan asks every contestant whether it runs here; that costs no import of what it wraps."""
    modules = [provider.factory.partition(":")[0] for provider in tfq_quantizers()]
    tools = ("openvino", "nncf", "torchao", "optimum.quanto")
    code = (
        f"import sys, importlib; [importlib.import_module(m) for m in {modules}]; "
        f"print([t for t in {tools} if t in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("provider", list(tfq_quantizers()), ids=lambda provider: provider.name)
def test_provider_makes_a_contestant_of_its_own_policy(provider):
    """Each is external, and its factory takes its options."""
    module, _, name = provider.factory.partition(":")
    made = getattr(importlib.import_module(module), name)(
        scheme=Scheme(wbits=8, abits=8, policy="own"),
        **{option.name: option.default for option in provider.options},
    )
    assert ("contestant", ("own",)) == (provider.protocol, provider.policies)
    assert all("==" in package for package in made.packages)


def test_missing_packages_are_named_with_the_command():
    """One sentence, for one or for several."""
    with pytest.raises(LoweringError, match=r"needs the package 'no-such-1', not installed here: "):
        installed("nncf", "torch", "no-such-1")
    with pytest.raises(
        LoweringError, match=r"packages 'no-such-1' and 'no-such-2'.*peers\[x\]'\.$"
    ):
        installed("x", "no-such-1", "no-such-2")


def test_cell_of_a_missing_tool_is_skipped(command, monkeypatch):
    """The plan says so in words; nothing else is affected."""
    real = importlib.metadata.version

    def version(name):
        if name == "nncf":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    code, shown = command("plan")
    assert 0 == code
    (line,) = (line for line in shown.splitlines() if line.startswith("skipped"))
    assert "nncf W8A8 (own)" in line
    assert line.endswith("pip install 'tfq-bench-peers[nncf]'.")
    assert "Traceback" not in shown


def test_a_suite_runs_with_all_of_them(command, tmp_path):
    """Quality, speed, size and what ran, of every tool, from one run; then nothing is left."""
    code, shown = command("run", "--no-report")
    assert 0 == code, shown
    found = {}
    for record in RunFolder(tmp_path / "run").records():
        if record.metric and record.execution == "external":
            found.setdefault(record.axes["quantizer"] + record.axes["abits"], {}).update(
                {record.metric.definition.name: record.metric.value}
            )
    assert {"nncf8", "torchao8", "quanto8", "quanto32"} == set(found)
    for name, values in found.items():
        assert {"psnr", "latency-ms", "file-bytes", "mac-share-low-bit"} <= set(values), name
        assert 10 < values["psnr"], name
    share = {name: values["mac-share-low-bit"] for name, values in found.items()}
    assert 1.0 == pytest.approx(share["nncf8"])
    assert 0 < share["torchao8"] == share["quanto8"] < 0.5
    assert 0 == share["quanto32"]
    assert "nothing to compute" in command("run", "--no-report")[1]
