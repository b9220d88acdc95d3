"""`--executor`, `--slots` and `--devices` go together, and say at once what cannot be."""

import json

import pytest

from tfq_bench.cli import _parse, main
from tfq_bench.cli.placing import placing
from tfq_bench.plan.suite import load_suite

EXECUTORS = """
import json, os
from tfq_bench import api

class Noting:
    def __init__(self, run, **given):
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        (run / "given.json").write_text(json.dumps({"seen": seen, **given}))

    def run(self, tasks, work, *, start, done):
        pass

SLOTS = api.Option(name="slots", kind="int", default=1, minimum=1, help="S.")
RACK = api.Option(name="devices", kind="str", default="rack 1", help="Where the cluster is.")

@api.hookimpl
def tfq_executors():
    for name, options, gpus in (
        ("noting", (SLOTS,), True), ("bare", (), True), ("cluster", (SLOTS, RACK), False)
    ):
        yield api.ExecutorProvider(
            name=name, summary="", factory=f"{__name__}:Noting", options=options, gpus=gpus
        )
"""
PROCESS = ["--executor", "process"]


@pytest.fixture
def suite(tiny_suite):
    """A function that writes the tiny suite for a device."""

    def write(device="cuda"):
        path = tiny_suite(metrics=("bits",))
        path.write_text(path.read_text().replace("[suite]", f'[suite]\ndevice = "{device}"'))
        return path

    return write


@pytest.fixture
def given(suite, plugin_host, tmp_path):
    """A function: what an executor is made with for these arguments."""
    plugin_host.install("executors", EXECUTORS, distribution="executors-dist")

    def make(*words, executor="noting", device="cuda"):
        path = str(suite(device))
        args = _parse(["run", path, "--executor", executor, *words])
        table = plugin_host.discover()
        placing(args, load_suite(path), table).executor(table, tmp_path)
        found = json.loads((tmp_path / "given.json").read_text())
        return {name: value for name, value in found.items() if name != "seen"}

    return make


@pytest.mark.parametrize(
    ("words", "slots", "devices"),
    [
        ("", 1, []),
        ("--slots 1", 1, []),
        ("--slots 2", 2, ["0", "1"]),
        ("--slots 5", 5, ["0", "1", "2"]),
        ("--devices 1", 1, ["1"]),
        ("--devices 2,0", 2, ["2", "0"]),
        ("--devices 0,1 --slots 4", 4, ["0", "1"]),
    ],
)
def test_slots_and_devices_complete_each_other(given, host_gpus, words, slots, devices):
    """A slot for each device, or the first GPUs for the slots; one slot needs no GPU chosen."""
    host_gpus("H100", "H100", "H100")
    assert {"slots": slots, "devices": devices} == given(*words.split())
    assert bool(devices) == bool(host_gpus.asked)


def test_on_the_cpu_no_gpu_is_looked_for(given, host_gpus):
    """Slots are processes then, as ever."""
    host_gpus("H100", "A100")
    assert {"slots": 2, "devices": []} == given("--slots", "2", device="cpu")
    assert [] == host_gpus.asked


def test_a_host_without_gpus_is_refused_by_the_run(given, host_gpus):
    """Slots alone ask for none."""
    host_gpus()
    assert {"slots": 2, "devices": []} == given("--slots", "2")


def test_an_executor_without_slots_places_on_what_is_named(given, host_gpus):
    """How many tasks run at the same time is its own matter."""
    host_gpus("H100", "H100")
    assert {"devices": ["0", "1"]} == given("--devices", "0,1", executor="bare")
    assert {"devices": []} == given(executor="bare")


def test_options_of_other_executors_are_theirs(given, host_gpus, suite, capsys):
    """One called `devices` is neither read nor set, on whatever device the suite computes."""
    host_gpus("H100", "H100")
    for device in ("cpu", "cuda"):
        expected = {"slots": 2, "devices": "rack 1"}
        assert expected == given("--slots", "2", executor="cluster", device=device)
    assert [] == host_gpus.asked
    assert 2 == main(["run", str(suite()), "--executor", "cluster", "--devices", "1"])
    assert "the executor 'cluster' spreads nothing over GPUs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "words", "message"),
    [
        ("cuda", ["--devices", "0"], "the executor 'inline' spreads nothing over GPUs; --executor"),
        ("cpu", [*PROCESS, "--devices", "0,1"], "suite 'tiny' runs on the device 'cpu'. Write"),
        ("cuda", [*PROCESS, "--devices", "0,b"], "expected numbers of GPUs with commas between"),
        ("cuda", [*PROCESS, "--devices", "1,1"], "expected each GPU once, found 1 twice"),
        ("cuda", [*PROCESS, "--devices", "0,3"], "there is no GPU 3; torch finds 0 (H100, 80 GiB)"),
        ("cuda", [*PROCESS, "--devices", "0,2"], "expected GPUs of one model, found 0 (H100"),
        ("cuda", [*PROCESS, "--slots", "3"], "expected GPUs of one model, found 0,1 (H100"),
        ("cuda", [*PROCESS, "--devices", "0,1", "--slots", "1"], "expected a slot for each GPU"),
        ("cuda", [*PROCESS, "--slots", "0"], "'slots' must be at least 1, found 0"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    suite, host_gpus, tmp_path, capsys, device, words, message
):
    """One sentence, exit code 2 and no run folder."""
    host_gpus("H100", "H100", "A100")
    run = tmp_path / "run"
    assert 2 == main(["run", str(suite(device)), "--run", str(run), *words])
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("tfq-bench: ")
    assert message in last
    assert not run.exists()


def test_a_run_sees_the_chosen_gpus_only(suite, plugin_host, host_gpus, tmp_path, capsys):
    """What it plans and records is theirs, and the terminal says which they are."""
    plugin_host.install("executors", EXECUTORS, distribution="executors-dist")
    host_gpus("A100", "H100", "H100")
    command = ["run", str(suite()), "--run", str(tmp_path / "run"), "--no-report"]
    assert 2 == main([*command, "--executor", "noting", "--devices", "1,2"])
    told = capsys.readouterr().err
    assert "tasks on GPU 1, 2 (H100, 80 GiB)" in told
    assert "torch finds no GPU here" in told.splitlines()[-1]
    found = json.loads((tmp_path / "run" / "given.json").read_text())
    assert {"seen": "1,2", "slots": 2, "devices": ["1", "2"]} == found
