"""GPUs are counted as CUDA counts them, and chosen so that their times compare."""

import os
import subprocess
import sys

import pytest

from tfq_bench.errors import TfqError, UsageError
from tfq_bench.executors import gpus
from tfq_bench.executors.gpus import chosen_gpus, parsed_devices, showing_only, visible_gpus


def shown(found):
    """What each GPU is called in `CUDA_VISIBLE_DEVICES`."""
    return [gpu.shown_by for gpu in found]


def test_numbers_are_read_in_their_order():
    """Spaces do not matter."""
    assert (2, 0, 11) == parsed_devices("2, 0,11")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected numbers of GPUs with commas between them, such as 0,1, found ''"),
        ("0,", "found '0,'"),
        ("cuda:1", "found 'cuda:1'"),
        ("-1", "found '-1'"),
        ("²", "found '²'"),
        ("9" * 5000, "found '999"),
        ("GPU-5d5b", "ids of GPUs go into that variable"),
        ("0,1,0", "expected each GPU once, found 0 twice"),
        ("1,01", "found 1 twice"),
    ],
)
def test_what_is_no_list_of_gpus_is_refused(text, message):
    """It says what was expected, and where ids of GPUs go."""
    with pytest.raises(UsageError, match=f"^--devices: .*{message}"):
        parsed_devices(text)


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (None, ["0", "1", "2"]),
        ("2,0", ["2", "0"]),
        (" GPU-1 ,2", ["GPU-1", "2"]),
        ("1,7,2", ["1"]),
        ("MIG-2,MIG-0", ["MIG-2", "MIG-0"]),
        ("MIG-2,MIG-7,MIG-0", ["MIG-2"]),
        ("MIG-1", ["MIG-1"]),
        ("", []),
        ("-1", []),
    ],
)
def test_gpus_are_those_that_the_variable_shows(host_gpus, monkeypatch, variable, expected):
    """Numbers and ids are kept as they are; nothing behind an unknown one is there for CUDA."""
    host_gpus("H100", "H100", "H100")
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    found = visible_gpus()
    assert expected == shown(found)
    assert list(range(len(found))) == [gpu.number for gpu in found]
    assert all("H100, 80 GiB" == gpu.model for gpu in found)


def test_one_process_is_asked_unless_there_are_mig_instances(host_gpus, monkeypatch):
    """Loading torch takes seconds; of several instances CUDA tells the first only."""
    host_gpus("H100", "H100")
    visible_gpus()
    for variable in ("0,1", "MIG-0,MIG-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
        visible_gpus()
    assert [None, "0,1", "MIG-0", "MIG-1"] == host_gpus.asked


def test_asked_for_or_the_first_ones(host_gpus):
    """Without numbers at most one GPU a slot, and no more than there are."""
    host_gpus("H100", "H100", "H100")
    assert ["2", "0"] == shown(chosen_gpus((2, 0), 5))
    assert ["0", "1"] == shown(chosen_gpus((), 2))
    assert ["0", "1", "2"] == shown(chosen_gpus((), 8))
    host_gpus()
    assert () == chosen_gpus((), 2)


def test_numbers_count_what_the_variable_shows(host_gpus, monkeypatch):
    """As torch does: `--devices 1` is the second of them."""
    host_gpus("A100", "H100", "H100")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    assert ["2"] == shown(chosen_gpus((1,), 1))


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (None, r"no GPU 4; torch finds 0 \(H100, 80 GiB\); 1 \(H100, 80 GiB\)\."),
        ("1", r"no GPU 4; torch finds 0 \(H100, 80 GiB\) among what CUDA_VISIBLE_DEVICES=1 shows"),
        ("-1", r"no GPU 4; torch finds none among what CUDA_VISIBLE_DEVICES=-1 shows"),
    ],
)
def test_a_gpu_that_is_not_there(host_gpus, monkeypatch, variable, message):
    """The message says which there are, and what hides others."""
    host_gpus("H100", "H100")
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    with pytest.raises(UsageError, match=message):
        chosen_gpus((4,), 1)


def test_unlike_gpus_are_refused(host_gpus):
    """By name, with what can be chosen; the unlike one may stay beside."""
    host_gpus("A100", "H100", "A100\n\x1b[31m", "H100")
    message = (
        r"found 0 \(A100, 80 GiB\) and 1,3 \(H100, 80 GiB\) and 2 \(A100 \\x1b\[31m, 80 GiB\)\. "
        ".*times of unlike ones do not compare.*such as --devices 1,3,"
    )
    for numbers in ((0, 1, 2, 3), ()):
        with pytest.raises(UsageError, match=message):
            chosen_gpus(numbers, 4)
    assert ["1", "3"] == shown(chosen_gpus((1, 3), 2))


def test_only_the_chosen_ones_are_seen(host_gpus, monkeypatch):
    """By this process and its children, for as long as it lasts."""
    host_gpus("A100", "H100", "H100")
    with showing_only(chosen_gpus((2, 1), 2)):
        assert "2,1" == os.environ["CUDA_VISIBLE_DEVICES"]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-0,GPU-2")
    with showing_only(chosen_gpus((1,), 1)):
        assert "GPU-2" == os.environ["CUDA_VISIBLE_DEVICES"]
    with pytest.raises(KeyboardInterrupt), showing_only(chosen_gpus((1,), 1)):
        raise KeyboardInterrupt
    assert "GPU-0,GPU-2" == os.environ["CUDA_VISIBLE_DEVICES"]
    with showing_only(()):
        assert "GPU-0,GPU-2" == os.environ["CUDA_VISIBLE_DEVICES"]


def test_a_child_process_is_asked(monkeypatch):
    """This process loads no torch for it, and CUDA stays to be started with another variable."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    report = (
        "import sys; from tfq_bench.executors.gpus import visible_gpus; "
        "print(visible_gpus(), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, check=True, timeout=300
    )
    assert "() False\n" == done.stdout


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("raise OSError('libcuda is gone')", r"\(OSError: libcuda is gone\)"),
        ("print('hello')", r"\(Expecting value"),
        ("import os; os._exit(0)", r"\(Expecting value"),
        ("import time; time.sleep(60)", r"timed out after 0\.5"),
    ],
)
def test_torch_that_does_not_answer(monkeypatch, question, message):
    """One sentence with what it said last, and how to do without."""
    monkeypatch.setattr(gpus, "_QUESTION", question)
    monkeypatch.setattr(gpus, "TIMEOUT_S", 0.5 if "sleep" in question else 120)
    with pytest.raises(TfqError, match=f"{message}.*Without --devices and --slots"):
        visible_gpus()
