"""What a machine that cannot run the kernels is told, also by `tfq-bench plan`."""

from __future__ import annotations

import pytest
import torch

from tfq_bench.api import LoweringError
from tfq_bench.cli import main
from tfq_bench_cuda import backend, machine
from tfq_bench_cuda.backend import CudaBackend

SUITE = """\
schema = 1
[suite]
name = "on-a-gpu"
device = "cuda"
[sampling]
steps = 2
images = 4
[[model]]
name = "tiny"
[[quantizer]]
name = "rtn"
wbits = [8]
abits = 8
[[backend]]
name = "cuda"
[[metric]]
name = "bits"
"""


def with_gpu(monkeypatch, capability, name="a card"):
    """Lets torch see a GPU of this compute capability."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)


def test_other_device_is_refused():
    """The backend does not move a network off the device that was asked for."""
    with pytest.raises(LoweringError, match="found 'cpu'"):
        machine.check_machine("cpu")


def test_machine_without_a_gpu_is_told_so(monkeypatch):
    """The message names torch, what it was built for, and the way out."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LoweringError) as caught:
        machine.check_machine("cuda")
    message = str(caught.value)
    assert torch.__version__ in message
    assert "sees none; check `nvidia-smi`, or use backend 'simulate'" in message


@pytest.mark.parametrize("capability", [(7, 5), (10, 0), (12, 0)])
def test_card_without_kernels_is_told_what_there_are(monkeypatch, capability):
    """Older and newer cards: what it has, what there are kernels for."""
    with_gpu(monkeypatch, capability, "RTX 0")
    with pytest.raises(LoweringError) as caught:
        machine.check_machine("cuda")
    message = str(caught.value)
    assert f"RTX 0 has {capability[0]}.{capability[1]}" in message
    assert "8.0, 8.6, 8.9, 9.0" in message


def test_missing_tilelang_is_named(monkeypatch):
    """Without TileLang the message says what to install."""
    with_gpu(monkeypatch, (9, 0))
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LoweringError, match=r"install 'tfq-bench-cuda\[tilelang\]'"):
        machine.check_machine("cuda")


def test_other_tilelang_is_refused(monkeypatch):
    """Another release may compile other code: it is named with the one that is needed."""
    with_gpu(monkeypatch, (9, 0))
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(machine.importlib.metadata, "version", lambda name: "0.2.0")
    with pytest.raises(LoweringError, match=r"needs TileLang 0\.1\.15, found 0\.2\.0"):
        machine.check_machine("cuda")


def test_missing_compiler_is_named(monkeypatch):
    """TileLang without nvcc compiles nothing."""
    with_gpu(monkeypatch, (9, 0))
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(machine.importlib.metadata, "version", lambda name: "0.1.15+cu130")
    monkeypatch.setattr(machine, "compiler", lambda: None)
    with pytest.raises(LoweringError, match="compiler nvcc"):
        machine.check_machine("cuda")


@pytest.mark.parametrize(
    ("capability", "arch"), [((8, 0), "sm_80"), ((8, 6), "sm_86"), ((9, 0), "sm_90a")]
)
def test_architecture_of_a_card(monkeypatch, capability, arch):
    """A card with all that is needed gets the code made for it."""
    with_gpu(monkeypatch, capability)
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(machine.importlib.metadata, "version", lambda name: "0.1.15")
    monkeypatch.setattr(machine, "compiler", lambda: "/usr/bin/nvcc")
    assert arch == machine.check_machine("cuda")


def test_plan_gives_the_sentence(plugin_host, monkeypatch, tmp_path, capsys):
    """Where there is no GPU, planning a suite with this backend says why it cannot run."""
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    plugin_host.install("builtin", "tfq_bench.host.builtin", distribution="tfq-bench")
    plugin_host.install("cuda", "tfq_bench_cuda.plugin", distribution="tfq-bench-cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    suite = tmp_path / "suite.toml"
    suite.write_text(SUITE, "utf-8")
    assert main(["plan", str(suite)]) == 2
    said = capsys.readouterr().err
    assert "backend 'cuda' cannot run here: backend 'cuda' needs an NVIDIA GPU" in said
    assert "optional = true" in said


def test_it_says_that_no_kernel_was_tried_yet(monkeypatch):
    """For `tfq-bench doctor`, which does not compile: the architecture, and when kernels are."""
    monkeypatch.setattr(backend, "check_machine", lambda device: "sm_90a")
    said = CudaBackend().exactness(device="cuda")
    assert said == "sm_90a; each kernel is held against exact integers once compiled"
