"""What the field tests share: distributions on a disk, commands that see them, references."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

SOUND = """
from tfq_bench import api

class Sound:
    def evaluate(self, inputs): return ()

@api.hookimpl
def tfq_metrics():
    yield api.MetricProvider(name="{name}", summary="For a test.", factory=__name__ + ":Sound")
"""


def as_in_a_terminal():
    """Lets a child be interrupted, which a session in the background could not hand down."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Machine:
    """A folder of distributions, before everything else on the search path of its commands."""

    def __init__(self, folder):
        self.folder = folder / "site"
        self.folder.mkdir()
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("TFQ_BENCH_")},
            "PYTHONPATH": os.pathsep.join([str(self.folder), os.environ.get("PYTHONPATH", "")]),
            "TFQ_BENCH_CACHE": str(folder / "cache"),
            "TFQ_BENCH_ASSETS": str(folder / "assets"),
            "TFQ_BENCH_PLUGIN_TIMEOUT": "30",
        }
        self.cwd = folder
        points = b"[tfq_bench]\ntiny = tfq_bench.testing.tiny_plugin\n"
        self.metadata("tiny-1.0", **{"entry_points.txt": points})

    def metadata(self, stem, **files):
        """Writes a dist-info of these files; bytes, or None for none. Returns its folder."""
        name, _, version = stem.partition("-")
        standard = {
            "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
            "entry_points.txt": f"[tfq_bench]\n{name} = {name}_module\n".encode(),
        }
        info = self.folder / f"{stem}.dist-info"
        info.mkdir()
        for filename, content in {**standard, **files}.items():
            if content is not None:
                (info / filename).write_bytes(content)
        return info

    interruptible = staticmethod(as_in_a_terminal)

    def plugin(self, name, source):
        """A sound distribution whose module is `source`."""
        self.metadata(f"{name}-1.0")
        (self.folder / f"{name}_module.py").write_text(source)

    def sound(self, name="sound"):
        """A plugin with one metric of its name."""
        self.plugin(name, SOUND.format(name=name))

    def run(self, *arguments, timeout=400, **environment):
        """`tfq-bench` with these arguments, finished."""
        return subprocess.run(
            [sys.executable, "-m", "tfq_bench", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.cwd,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            preexec_fn=as_in_a_terminal,
        )


SUITE = """\
schema = 1
seeds = [0]
suite = {name = "tiny", threads = 1}
sampling = {sampler = "ddim", steps = 2, images = 2, batch = 2, shard = 2}
calibration = {images = 2, batch = 2}
model = [{name = "tiny"}]
quantizer = [{name = "fp"}, {name = "rtn", wbits = [8], abits = 8}]
backend = [{name = "simulate"}]
metric = [{name = "bits"}]
"""


@pytest.fixture
def suite_text():
    """A suite of the tiny model, which runs in seconds; the model must be installed."""
    return SUITE


@pytest.fixture(scope="session")
def new_machine():
    """A function that makes an empty `Machine` in a folder."""
    return Machine


@pytest.fixture
def machine(tmp_path):
    """An empty `Machine`."""
    return Machine(tmp_path)


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """A file of reference statistics under EfficientNet-Lite0, of 40 random images."""
    from tfq_bench.metrics.extractors import efficientnet_lite0
    from tfq_bench.metrics.reference import ReferenceStatistics

    images = np.random.default_rng(2).integers(0, 256, size=(40, 8, 8, 3)).astype(np.uint8)
    network = efficientnet_lite0()
    path = tmp_path_factory.mktemp("reference") / "reference.safetensors"
    features = network.features(images, device="cpu")
    ReferenceStatistics.of(features, network, {"data": "random"}).save(path)
    return path
