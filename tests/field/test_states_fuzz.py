"""States that somebody changed and sealed again: refused in a sentence, or finite and the same."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tfq_bench.errors import StoreError, TfqError
from tfq_bench.pipeline.lower import lowering_facts
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.quant.state.storage import _digest, load_state, save_state
from tfq_bench.testing.fuzzing import fuzz
from tfq_bench.testing.inputs import tiny_state
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import Scheme

LOADED = load_tiny(steps=3)
SCALARS = (
    *(None, True, -1, 0, 1, 2, 3, 5, 9, 17, 255, 10**6, 10**30, -(10**30), 0.5, 1e308, "", "x"),
    *("../../etc/passwd", "conv_in", "linear", "conv2d", [], {}, [1], [[1, 2]], {"a": 1}),
)


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A saved state of the tiny model."""
    folder = tmp_path_factory.mktemp("state")
    save_state(tiny_state(LOADED, Scheme(wbits=4, abits=8)), folder)
    return folder


def places(value, path=()):
    """Every place in a JSON value."""
    found = [path]
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(one, (*path, key))
    return found


def changed(value, path, new):
    """The value with what is at `path` replaced."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


def seal(folder, content):
    """Writes the manifest with right digests, as somebody would who knows how."""
    for file in content["files"] if isinstance(content.get("files"), list) else ():
        if isinstance(file, dict) and isinstance(file.get("file"), str):
            path = folder / Path(file["file"]).name
            if path.is_file() and "sha256" in file:
                file["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
                file["bytes"] = path.stat().st_size
    document = {"content": content, "sha256": _digest(content)}
    (folder / "manifest.json").write_text(json.dumps(document))


def predicted(folder):
    """What the state in a folder predicts, after what a run checks before it samples."""
    state = load_state(folder)
    lowered = simulate(LOADED, state)
    lowering_facts(LOADED, state, lowered, None, execution="simulated")
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return LOADED.model.predict(lowered.network, x, torch.full((1,), 500), {})


def used(folder, change):
    """Changes a copy of a state, seals it and uses it: whether it predicts finitely, or why not."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "state"
        shutil.copytree(folder, copy)
        content = json.loads((copy / "manifest.json").read_text())["content"]
        seal(copy, change(copy, content))
        try:
            return bool(torch.isfinite(predicted(copy)).all()), ""
        except TfqError as error:
            return False, str(error).strip()


@fuzz(30)
@given(st.integers(0, 10**6), st.sampled_from(SCALARS))
def test_fuzz_manifests(state, number, new):
    """Any value at any place of the manifest: a finite prediction, or a sentence."""

    def change(copy, content):
        found = places(content)[1:]
        return changed(content, found[number % len(found)], new)

    finite, refusal = used(state, change)
    assert finite or 0 < len(refusal) < 2000


@fuzz(20)
@given(st.integers(0, 10**6), st.floats(0, 0.999), st.integers(0, 255))
def test_fuzz_bytes_of_tensors(state, number, place, new):
    """Any byte of a file of tensors, its header more often: finite, or a sentence."""

    def change(copy, content):
        found = sorted(copy.glob("*.safetensors"))
        path = found[number % len(found)]
        held = bytearray(path.read_bytes())
        held[int(place * place * len(held))] = new
        path.write_bytes(held)
        return content

    finite, refusal = used(state, change)
    assert finite or 0 < len(refusal) < 2000


VALUES = (0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e-45, 3e38, 1e30)


@fuzz(20)
@given(st.integers(0, 10**6), st.sampled_from([*VALUES, "cut", "wide", "type", "empty", "gone"]))
def test_fuzz_tensors(state, number, new):
    """Values that no scale or code has, other shapes or types, none: finite, or a sentence."""

    def change(copy, content):
        (path,) = copy.glob("*.safetensors")
        tensors = load_file(path)
        name = sorted(tensors)[number % len(tensors)]
        held = tensors.pop(name)
        if isinstance(new, float):
            held = held.float() if held.dtype != torch.uint8 else held
            held.view(-1)[number % held.numel()] = new if held.is_floating_point() else 255
        elif new == "gone":
            held = None
        else:
            held = {
                "cut": lambda: held[:-1],
                "wide": lambda: torch.stack([held, held]),
                "type": lambda: held.to(torch.int64),
                "empty": lambda: held[:0],
            }[new]()
        if held is not None:
            tensors[name] = held.contiguous().clone()
        save_file(tensors, path)
        return content

    finite, refusal = used(state, change)
    assert finite or 0 < len(refusal) < 2000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested more than"),
        ('{"content": ' * 5_000, "nested more than"),
        ('{"content": {"format": NaN}, "sha256": ""}', "NaN"),
        ('{"content": {}, "content": {}, "sha256": ""}', "twice"),
        ("null", "expected a manifest"),
    ],
)
def test_manifests_that_are_no_manifests(tmp_path, text, message):
    """Bounded, strict, and in words."""
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match=message):
        load_state(tmp_path)


def test_the_layer_is_named(state, tmp_path):
    """A scale that is not finite is refused where it is, when the layer is looked at."""
    shutil.copytree(state, tmp_path / "s")
    (path,) = (tmp_path / "s").glob("*.safetensors")
    tensors = load_file(path)
    tensors["first.conv1/0/scale"][3] = float("nan")
    save_file(tensors, path)
    seal(tmp_path / "s", json.loads((tmp_path / "s" / "manifest.json").read_text())["content"])
    with pytest.raises(StoreError, match=r"layer 'first.conv1'.*scales must be finite"):
        predicted(tmp_path / "s")
