"""What is saved is what is loaded, at its true width; anything else is refused."""

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tfq_bench.errors import QuantizationError, StoreError
from tfq_bench.quant.state import storage
from tfq_bench.quant.state.qparams import ActivationQParams
from tfq_bench.quant.state.quantized_state import LayerPart, QuantizedLayer, QuantizedState
from tfq_bench.quant.state.storage import LayerSpill, load_state, save_state
from tfq_bench.types import Scheme

TIMESTEPS = (801, 401, 1)


@pytest.fixture
def make_layer(generator):
    """Makes a layer of random codes in two parts: the first with per-step tables."""

    def make(wbits, name="up.0.conv"):
        def part(start, stop, activation):
            return LayerPart(
                start=start,
                stop=stop,
                weight=torch.randint(
                    0, 2**wbits, (5, stop - start, 3, 3), generator=generator, dtype=torch.uint8
                ),
                scale=torch.rand(5, generator=generator) + 0.1,
                zero_point=torch.full((5,), 2 ** (wbits - 1), dtype=torch.int32),
                activation=activation,
            )

        table = ActivationQParams(
            bits=6,
            scale=torch.rand(3, generator=generator) + 0.1,
            zero_point=torch.tensor([0, 31, 63], dtype=torch.int32),
        )
        return QuantizedLayer(
            name=name,
            kind="conv2d",
            wbits=wbits,
            parts=(part(0, 3, table), part(3, 7, None)),
            bias=torch.randn(5, generator=generator),
        )

    return make


def state_of(*layers):
    """A state with these layers."""
    return QuantizedState(
        model="abc",
        method="random",
        scheme=Scheme(wbits=4, abits=6),
        timesteps=TIMESTEPS,
        layers={layer.name: layer for layer in layers},
        exempt={"conv_in": "because"},
    )


@pytest.mark.parametrize("wbits", [8, 6, 4, 3])
def test_state_comes_back_as_it_was(make_layer, tmp_path, wbits, dequantized):
    """Every tensor and field, with the layers in the order they had."""
    before = state_of(make_layer(wbits, "z.first"), make_layer(wbits, "a.second"))
    save_state(before, tmp_path / "state")
    after = load_state(tmp_path / "state")
    assert list(after.layers) == ["z.first", "a.second"]
    for name in ("model", "method", "scheme", "timesteps", "exempt"):
        assert getattr(before, name) == getattr(after, name)
    for name, layer in before.layers.items():
        loaded = after.layers[name]
        assert (layer.kind, layer.wbits, layer.abits) == (loaded.kind, loaded.wbits, loaded.abits)
        assert torch.equal(layer.bias, loaded.bias)
        assert torch.equal(dequantized(layer), dequantized(loaded))
        for one, other in zip(layer.parts, loaded.parts, strict=True):
            assert (one.start, one.stop) == (other.start, other.stop)
            assert torch.equal(one.weight, other.weight)
            assert torch.equal(one.zero_point, other.zero_point)
        table, found = layer.parts[0].activation, loaded.parts[0].activation
        assert table.bits == found.bits
        assert torch.equal(table.scale, found.scale)
        assert torch.equal(table.zero_point, found.zero_point)
        assert loaded.parts[1].activation is None


@pytest.mark.parametrize("wbits", [8, 6, 4, 3])
def test_weights_take_their_bits_on_disk(make_layer, tmp_path, wbits):
    """ceil(n*b/8) bytes of codes per part, and `packed_bytes` is what the file holds."""
    state = state_of(make_layer(wbits))
    save_state(state, tmp_path)
    stored = load_file(tmp_path / "tensors-0001.safetensors")
    codes = sum(t.nbytes for name, t in stored.items() if name.endswith("/weight"))
    assert math.ceil(135 * wbits / 8) + math.ceil(180 * wbits / 8) == codes
    # Two parts with 5 scales and zero points, one table of 3, one bias of 5.
    assert codes + 2 * 5 * 5 + 3 * 5 + 5 * 4 == state.packed_bytes
    assert state.packed_bytes == sum(t.nbytes for t in stored.values())


def test_saving_twice_gives_the_same_bytes(make_layer, tmp_path):
    """Content keys rest on it."""
    state = state_of(make_layer(4))
    for name in ("one", "two"):
        save_state(state, tmp_path / name)
    for file in ("tensors-0001.safetensors", "manifest.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_state_without_layers_is_saved_too(tmp_path):
    """Full precision has one."""
    save_state(state_of(), tmp_path)
    assert load_state(tmp_path).layers == {}


@pytest.mark.parametrize("file", ["tensors-0001.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_damaged_file_is_refused_by_name(make_layer, tmp_path, file, damage):
    """One flipped bit, a lost tail or a lost file: the message names the file."""
    save_state(state_of(make_layer(4)), tmp_path)
    path = tmp_path / file
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[:-7])
    else:
        # Inside the manifest's model name, or inside the last tensor.
        position = content.index(b"abc") if file == "manifest.json" else len(content) - 1
        content[position] ^= 1
        path.write_bytes(content)
    with pytest.raises(StoreError, match=rf"{file}.*expected.*found"):
        load_state(tmp_path)


def test_manifest_of_another_format_is_refused(make_layer, tmp_path):
    """Even when its digest is right."""
    from tfq_bench.quant.state import storage

    save_state(state_of(make_layer(4)), tmp_path)
    path = tmp_path / "manifest.json"
    document = json.loads(path.read_text())
    document["content"]["format"] = 99
    document["sha256"] = storage._digest(document["content"])
    path.write_text(json.dumps(document))
    with pytest.raises(StoreError, match=r"expected format 3, .* found 99"):
        load_state(tmp_path)


def test_folder_that_cannot_be_written_is_a_store_error(make_layer, tmp_path):
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        save_state(state_of(make_layer(4)), tmp_path / "file")


def test_impossible_states_are_refused(make_layer):
    """A table of another length, a code too large, a scale of zero."""
    layer = make_layer(4)
    with pytest.raises(QuantizationError, match="1 or 2 entries"):
        QuantizedState(
            model="abc",
            method="random",
            scheme=Scheme(),
            timesteps=(1, 2),
            layers={layer.name: layer},
            exempt={},
        )
    with pytest.raises(QuantizationError, match="at most 7"):
        QuantizedLayer(name="x", kind="conv2d", wbits=3, parts=layer.parts)
    with pytest.raises(QuantizationError, match="finite and positive"):
        ActivationQParams(
            bits=8, scale=torch.zeros(1), zero_point=torch.zeros(1, dtype=torch.int32)
        )


def test_large_state_is_spread_over_files_and_read_layer_by_layer(
    make_layer, tmp_path, monkeypatch, dequantized
):
    """Each file is closed once it is large enough; what is read is what was written."""
    monkeypatch.setattr("tfq_bench.quant.state.tensor_files.FILE_BYTES", 300)
    layers = [replace(make_layer(4), name=name) for name in ("one", "two", "three")]
    save_state(state_of(*layers), tmp_path)
    files = sorted(path.name for path in tmp_path.glob("tensors-*.safetensors"))
    assert ["tensors-0001.safetensors", "tensors-0002.safetensors"] == files[:2]
    loaded = load_state(tmp_path)
    assert ["one", "two", "three"] == list(loaded.layers)
    for layer in layers:
        expected, found = dequantized(layer), dequantized(loaded.layers[layer.name])
        assert torch.equal(expected, found)
    (tmp_path / files[1]).unlink()
    with pytest.raises(StoreError, match=files[1]):
        load_state(tmp_path)


def test_spilled_layers_are_the_layers(make_layer, tmp_path):
    """On disk or in memory; what an earlier attempt left is gone."""
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "left").write_text("")
    one, two = make_layer(4), replace(make_layer(8), name="two")
    spilled, kept = LayerSpill(tmp_path / "layers"), LayerSpill(None)
    for spill in (spilled, kept):
        spill.add(one)
        spill.add(two)
    found = spilled.layers()
    assert list(kept.layers()) == list(found)
    assert not (tmp_path / "layers" / "left").exists()
    for name, layer in kept.layers().items():
        assert torch.equal(layer.parts[0].weight, found[name].parts[0].weight)
        assert torch.equal(layer.parts[0].scale, found[name].parts[0].scale)


@pytest.mark.parametrize("kept", [True, False])
def test_layers_of_a_small_state_are_read_once(make_layer, tmp_path, monkeypatch, kept):
    """Those of a larger one are read each time, as they may not fit in memory; both are equal."""
    layer = make_layer(4)
    save_state(state_of(layer), tmp_path)
    if not kept:
        monkeypatch.setattr(storage, "KEPT_BYTES", 0)
    layers = load_state(tmp_path).layers
    first, again = layers[layer.name], layers[layer.name]
    assert kept == (first is again)
    assert torch.equal(first.parts[0].weight, again.parts[0].weight)
    assert torch.equal(first.parts[0].weight, layer.parts[0].weight)
