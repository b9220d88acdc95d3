"""A training state on disk: whole, or refused."""

import json

import pytest
import torch

from tfq_bench_cifar10 import export, train
from tfq_bench_cifar10.checkpoint import load_checkpoint, save_checkpoint

GROUPS = {"model": {"a.w": torch.arange(6.0).view(2, 3)}, "ema": {"a.w": torch.ones(2).half()}}


@pytest.fixture
def saved(tmp_path):
    """The folder of a small checkpoint."""
    folder = tmp_path / "run"
    save_checkpoint(folder, GROUPS, {"step": 1})
    return folder


def part_of(folder):
    """Its only file of tensors."""
    (part,) = folder.glob("*.safetensors")
    return part


def test_a_checkpoint_comes_back_as_it_was_saved(saved):
    """Groups, names, dtypes, values and the state survive."""
    groups, state = load_checkpoint(saved)
    assert state == {"step": 1}
    assert GROUPS.keys() == groups.keys()
    for group, tensors in GROUPS.items():
        torch.testing.assert_close(groups[group], tensors, rtol=0, atol=0)


def test_a_save_that_is_cut_off_leaves_the_last_checkpoint(tmp_path):
    """Until state.json is replaced, the previous checkpoint loads whole."""
    save_checkpoint(tmp_path, {"model": {"w": torch.ones(3)}}, {"step": 1})
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path, {"model": {"w": torch.zeros(3)}}, {"step": 2, "bad": object()})
    groups, state = load_checkpoint(tmp_path)
    assert state == {"step": 1}
    assert groups["model"]["w"].tolist() == [1.0, 1.0, 1.0]


def test_a_changed_byte_is_found_and_the_file_is_named(saved):
    """One flipped bit in a weight is refused by its digest."""
    content = bytearray(part_of(saved).read_bytes())
    content[-1] ^= 1
    part_of(saved).write_bytes(content)
    with pytest.raises(ValueError, match=r"step-1-part-0\.safetensors: expected the file that was"):
        load_checkpoint(saved)


def test_a_file_that_is_cut_off_is_found(saved):
    """A file that was copied half is refused in the same words."""
    part_of(saved).write_bytes(part_of(saved).read_bytes()[:50])
    with pytest.raises(ValueError, match="Copy the whole checkpoint again"):
        load_checkpoint(saved)


def test_a_file_that_is_missing_is_named(saved):
    """A part that state.json names must be there."""
    part_of(saved).unlink()
    with pytest.raises(ValueError, match=r"part-0\.safetensors.* found no file"):
        load_checkpoint(saved)


def test_a_state_that_is_no_json_is_refused(saved):
    """A state.json that was cut off is named, not passed on as a parser's complaint alone."""
    (saved / "state.json").write_text('{"step": 1, "fi')
    with pytest.raises(ValueError, match=r"state\.json: expected the JSON"):
        load_checkpoint(saved)


def test_a_checkpoint_without_digests_still_loads(saved):
    """Trainings that began before digests were stored can be resumed."""
    state = json.loads((saved / "state.json").read_text())
    del state["sha256"]
    (saved / "state.json").write_text(json.dumps(state))
    assert load_checkpoint(saved)[1] == {"step": 1}


@pytest.mark.parametrize("command", ["train", "export"])
def test_commands_refuse_a_tampered_checkpoint_without_a_traceback(
    saved, data_file, tmp_path, capsys, command
):
    """Both commands end with status 2 and the sentence, and write nothing."""
    part_of(saved).write_bytes(b"other")
    before = sorted(path.read_bytes() for path in saved.iterdir())
    target = tmp_path / "weights"
    words = {
        "train": ["--data", data_file, "--out", saved, "--steps", 2, "--resume", "--device", "cpu"],
        "export": ["--checkpoint", saved, "--to", target, "--commit", "abc"],
    }
    main = {"train": train.main, "export": export.main}[command]
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words[command]])
    assert stop.value.code == 2
    assert "expected the file that was saved" in capsys.readouterr().err
    assert before == sorted(path.read_bytes() for path in saved.iterdir())
    assert not target.exists()
