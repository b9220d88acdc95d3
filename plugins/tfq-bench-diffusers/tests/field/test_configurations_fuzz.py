"""Any configuration of a network loads as in diffusers, or is refused in one line."""

from __future__ import annotations

import json
import shutil

import diffusers
import torch
from hypothesis import given
from hypothesis import strategies as st

from tfq_bench import api
from tfq_bench.testing.fuzzing import fuzz
from tfq_bench_diffusers.known_keys import NETWORKS
from tfq_bench_diffusers.model import DiffusersModel

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 20),
    st.sampled_from([1e-3, 1e30, "default", "scale_shift", "resnet", "", "positional"]),
    st.lists(st.integers(0, 9), max_size=3),
)


def test_fuzz_network_configurations(make_folder, tmp_path):
    """Loads as in diffusers, or is refused in one line with the configuration's path."""
    source = make_folder("ddpm")
    config = json.loads((source / "unet" / "config.json").read_text())
    folder = shutil.copytree(source, tmp_path / "mutated")
    keys = sorted({*NETWORKS["UNet2DModel"], "_class_name", "unheard_of"})
    seen = []

    @fuzz(25)
    @given(st.dictionaries(st.sampled_from(keys), VALUES, min_size=1, max_size=2))
    def check(changes):
        (folder / "unet" / "config.json").write_text(json.dumps({**config, **changes}))
        model = DiffusersModel(source=str(folder))
        told = ""
        try:
            assert len(model.digest) == 64
            network = model.load(device="cpu", dtype=torch.float32)
            model.topology(network)
        except api.TfqError as error:
            told = str(error)
        if told:
            seen.append(False)
            named = ("mutated", "resolution", "UNet2DModel", *changes)
            assert any(word in told for word in named), told
            assert "\n" not in told
            return
        seen.append(True)
        if isinstance(changes.get("attention_head_dim"), list):
            return  # heads of each block, for converted checkpoints: diffusers builds no such thing
        expected = diffusers.UNet2DModel.from_pretrained(folder / "unet")
        x, t = torch.ones(1, 3, 8, 8), torch.tensor([300])
        with torch.no_grad():
            found = model.predict(network, x, t, model.conditions([0], device="cpu"))
            labels = model.conditions([0], device="cpu").get("labels")
            right = expected(x, t, class_labels=labels).sample[:, :3]
        torch.testing.assert_close(found, right, equal_nan=True)  # a sample of it fails by itself

    check()
    assert any(seen)
    assert not all(seen)
