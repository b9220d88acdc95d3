"""A tool in a process of its own keeps the contract; what goes wrong there is a sentence here."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tfq_bench.api import LoweringError, Scheme
from tfq_bench.testing.contracts import ContestantContract
from tfq_bench.testing.tiny import load_tiny
from tfq_bench_peers import sdnq_external
from tfq_bench_peers.sdnq_external import Sdnq
from tfq_bench_peers.sdnq_network import VARIABLE
from tfq_bench_peers.sdnq_process.portable import pack, unpack

pytestmark = pytest.mark.usefixtures("stand_in")
SCHEMES = (Scheme(wbits=8, abits=8, policy="own"), Scheme(wbits=8, abits=32, policy="own"))


def make(scheme=SCHEMES[0], smallest=1):
    """The contestant, for networks of any size."""
    return Sdnq(scheme=scheme, convolutions=False, smallest=smallest)


def product(tmp_path):
    """A loaded tiny model and the folder of its product."""
    loaded, folder = load_tiny(), tmp_path / "product"
    folder.mkdir()
    make().quantize(loaded, None, generator=None, progress=lambda *_: None, folder=folder)
    return loaded, folder


class TestSdnq(ContestantContract):
    """The contract of contestants, across two processes."""

    schemes = SCHEMES[:1]  # a process for each load takes seconds to start

    def make(self, scheme):
        return make(scheme)

    def test_layers_are_those_that_were_swapped(self, tmp_path):
        """Linear layers, with the product that each ends in there; it is never imported here."""
        kernels = [
            {
                use.kernel
                for use in self._lowered(self.load(), scheme, tmp_path / scheme.label).kernels
            }
            for scheme in SCHEMES
        ]
        assert [{"aten::_int_mm int8 x int8"}, {"aten::mm float32 x float32"}] == kernels
        assert "sdnq" not in sys.modules

    def test_time_outside_is_told(self, tmp_path):
        """The record says what part of a call is the way to the other process."""
        lowered = self._lowered(self.load(), SCHEMES[0], tmp_path / "product")
        told = lowered.details["transport"]
        assert 0 < told["outside_ms"] < told["call_ms"]
        assert any("the way there and back" in one for one in lowered.details["remarks"])


def test_interpreter_without_it_is_named(monkeypatch):
    """With the command that installs it there."""
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(LoweringError, match=rf"'sdnq'.*{sys.executable} -m pip install sdnq"):
        make().check(device="cpu")


def test_interpreter_that_is_none_is_named(monkeypatch, tmp_path):
    """A path that does not start is no traceback."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(LoweringError, match=rf"nowhere' is expected to be.*{VARIABLE}"):
        make().check(device="cpu")


def test_end_in_the_middle_of_a_call(monkeypatch, tmp_path):
    """The exit code, and that other cells are not affected."""
    loaded, folder = product(tmp_path)
    monkeypatch.setenv("STAND_IN", "die")
    with pytest.raises(LoweringError, match="ended with exit code 7 when it was to look"):
        make().load(loaded, folder)


def test_end_between_calls(tmp_path):
    """A process that is killed is told at the next call."""
    loaded, folder = product(tmp_path)
    lowered = make().load(loaded, folder)
    lowered.network._process._process.kill()
    with pytest.raises(LoweringError, match="ended by signal 9 when it was to call"):
        lowered.network(torch.zeros(1, 3, 8, 8), torch.ones(1))


def test_what_the_tool_refuses(monkeypatch, tmp_path):
    """Its own words."""
    monkeypatch.setenv("STAND_IN", "refuse")
    with pytest.raises(LoweringError, match="cannot quantize: RuntimeError: this model is not"):
        product(tmp_path)


def test_network_of_small_layers(tmp_path):
    """Nothing quantized is no contestant; the option is named."""
    with pytest.raises(LoweringError, match="fewer than 100000 weights"):
        make(smallest=100000).quantize(
            load_tiny(), None, generator=None, progress=lambda *_: None, folder=tmp_path
        )


def test_product_of_another_version(tmp_path):
    """Tensors that this version makes otherwise are refused by name."""
    loaded, folder = product(tmp_path)
    with pytest.raises(LoweringError, match=r"tensor '.*' is stored otherwise"):
        make(smallest=2000).load(loaded, folder)


def test_process_ends_with_its_network(tmp_path):
    """Nothing is left running."""
    loaded, folder = product(tmp_path)
    lowered = make().load(loaded, folder)
    process = lowered.network._process._process
    assert process.poll() is None
    del lowered
    assert process.wait(10) == 0


def test_structure_and_tensors_travel_apart():
    """Shared parameters stay shared, dtypes and shapes are kept."""
    layer = torch.nn.Linear(2, 2)
    layer.register_forward_hook(lambda *_: None)  # stays here
    sent = pack({"a": layer, "b": layer.weight, "c": torch.tensor(3, dtype=torch.int64), "d": "x"})
    got = unpack(sent)
    assert 4 == len(sent)
    assert got["a"].weight is got["b"]
    assert (3, "x") == (int(got["c"]), got["d"])


def test_program_needs_nothing_of_ours():
    """It runs in an interpreter that has SDNQ and not us."""
    folder = Path(sdnq_external.__file__).parent / "sdnq_process"
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); import program; "
        "print([name for name in sys.modules if name.startswith('tfq')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()
