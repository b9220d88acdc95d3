"""Products: given by hand, of a lowered network, and of a run."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch

from tfq_bench.api import NothingToDo, StoreError, UsageError
from tfq_bench.store import RunFolder
from tfq_bench_cuda.backend import CudaBackend
from tfq_bench_cuda.kernels.reference import ReferenceKernels
from tfq_bench_cuda.kernels.specs import ConvSpec, Ending, Tile
from tfq_bench_cuda.kernels.tiles import TileChoice
from tfq_bench_cuda.products import SQUARE, Product, describe_products
from tfq_bench_cuda.wanted import conv, linear, one_per_shape, products_of_run

from .run_folders import entries, run_of

PLAIN = linear("2048x1280x1280:residual", "bfloat16")


def test_products_given_by_hand():
    """Inputs are filled up as the kernels have them; the type is that of results and residuals."""
    ending = Ending(shift=True, residual="float16", out="float16")
    assert linear("70x96x40:shift+residual", "float16") == Product(
        rows=70, outputs=96, inputs=64, ending=ending
    )
    geglu = linear("2048x5120x1280:geglu+codes", "bfloat16")
    assert geglu.ending == Ending(activation="geglu", out="int8")
    assert geglu.shape == (2048, 5120, 1280, 1, 2)
    image = conv("2x16x24x4x320", "bfloat16")
    assert (image.rows, image.inputs, image.geometry, image.size) == (768, 32, SQUARE, (16, 24))
    assert image.shape == (768, 320, 32, 9, 1)


@pytest.mark.parametrize(
    ("make", "text", "said"),
    [
        (linear, "2048x1280", "3 whole numbers"),
        (linear, "2048x1280x0", "3 whole numbers"),
        (linear, "2048x1280x-1", "3 whole numbers"),
        (linear, "2048 x 1280 x 1280", "3 whole numbers"),
        (linear, "99999999999x1x1", "3 whole numbers"),
        (linear, "64x64x64:geglo", "did you mean 'geglu'"),
        (linear, "64x64x64:", None),
        (linear, "64x80x64:codes", "multiple of 32"),
        (linear, "64x64x64:geglu+shift", "no shift"),
        (conv, "2x64x64x640", "5 whole numbers"),
        (conv, "2x64x64x640x640:geglu", "no GEGLU"),
    ],
)
def test_what_cannot_be_read_is_said(make, text, said):
    """A sentence with what was expected; an empty ending is none."""
    if said is None:
        assert make(text, "bfloat16") == make(text.rstrip(":"), "bfloat16")
        return
    with pytest.raises(UsageError, match=said):
        make(text, "bfloat16")


@pytest.fixture
def listed(loaded, images, make_state):
    """A tiny network's products after a call of it, with its layers: `listed(batch=4)`."""
    t = torch.full((2,), 500)
    state = make_state()
    rows = {}

    def seen(name, output):
        channels = output.shape[1 if output.dim() == 4 else -1]
        rows[name] = output.numel() // channels // len(images)

    handles = [
        loaded.network.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: seen(name, output)
        )
        for name in state.layers
    ]
    loaded.model.predict(loaded.network, images, t, {})
    for handle in handles:
        handle.remove()

    class Backend(CudaBackend):
        """The topology of this network, made by hand, does not know how often weights are used."""

        def _tiles(self, loaded, layer, arch):
            return TileChoice(arch=arch, rows=self.batch * rows[layer.name])

    def products(batch, **options):
        backend = Backend(kernels=ReferenceKernels(), batch=batch, **options)
        lowered = backend.lower(loaded, state)
        loaded.model.predict(lowered.network, images, t, {})
        layers = {name: lowered.network.get_submodule(name) for name in rows}
        return describe_products(layers.values()), layers

    return products


def test_products_of_a_network(listed):
    """Each product of each layer, for the rows at the batch that tiles are chosen for."""
    found, layers = listed(batch=4, blocks=False)
    expected = Counter(
        (type(spec) is ConvSpec, layer.tiles.rows, spec.n, spec.terms, spec.tile)
        for layer in layers.values()
        for spec in layer.specs(layer.single)
    )
    counts: Counter = Counter()
    for entry in found:
        product = Product.from_json(json.loads(json.dumps(entry)))
        spec = product.spec(Tile(**entry["tile"]), gathers=False)
        assert product.taps == entry["taps"]
        assert product.tile(TileChoice(arch="sm_90a", rows=product.rows)) == spec.tile
        key = (product.size is not None, product.rows, spec.n, spec.terms, spec.tile)
        counts[key] += entry["count"]
    assert expected == counts
    sizes = {tuple(entry["size"]) for entry in found if entry["size"]}
    assert {(8, 8), (4, 4)} <= sizes


def test_fused_products_have_their_endings_and_are_counted_once(listed):
    """Queries, keys and values of an attention are one product of three layers."""
    found, layers = listed(batch=4)
    endings = {str(Ending(**entry["ending"])) for entry in found}
    assert {"shift", "residual"} <= endings
    joined = [layer for name, layer in layers.items() if name.endswith("to_q")]
    (width,) = {layer.running[0].n for layer in joined}
    assert [len(joined)] == [e["count"] for e in found if e["outputs"] == width and not e["size"]]
    assert width == 3 * joined[0].specs(joined[0].single)[0].n


def test_a_convolution_that_was_never_called_is_left_out(loaded, make_state):
    """Nobody knows the size of its image."""
    lowered = CudaBackend(kernels=ReferenceKernels()).lower(loaded, make_state())
    products = lowered.details["products"]
    assert products
    assert all(entry["size"] is None for entry in products)


def test_products_of_a_run(tmp_path):
    """Of all cells that are lowered, each as often as the cell that has most of it."""
    image = conv("2x8x8x32x64", "float32")
    run = run_of(tmp_path / "run", entries(PLAIN, count=3), None, entries(PLAIN, image))
    assert Counter({PLAIN: 3, image: 1}) == products_of_run(run)


def test_a_run_without_products(tmp_path):
    """Nothing is lowered, or by other backends: nothing to do. No run is a wrong argument."""
    with pytest.raises(NothingToDo, match="no cell of backend 'cuda' is lowered"):
        products_of_run(run_of(tmp_path / "run", None))
    with pytest.raises(NothingToDo):
        products_of_run(run_of(tmp_path / "run", entries(PLAIN), backend="openvino"))
    with pytest.raises(StoreError, match="expected a run folder"):
        products_of_run(tmp_path / "nothing")


@pytest.mark.parametrize(
    "details",
    [
        {},
        None,
        {"products": 3},
        {"products": [{}]},
        {"products": [{**entries(PLAIN)["products"][0], "rows": "2048"}]},
        {"products": [{**entries(PLAIN)["products"][0], "inputs": 33}]},
        {"products": [{**entries(PLAIN)["products"][0], "size": [8, 8]}]},
        {"products": [{**entries(PLAIN)["products"][0], "ending": {"end": True}}]},
    ],
)
def test_products_of_another_version_are_a_sentence(tmp_path, details):
    """It names the file and what to do."""
    run = run_of(tmp_path / "run", entries(PLAIN))
    folder = RunFolder.open(run)
    (folder.artefacts.path("lower", "l0") / "manifest.json").unlink()
    with folder.artefacts.create("lower", "l0") as path:
        (path / "result.json").write_text(json.dumps({"details": details}))
    with pytest.raises(StoreError, match=r"l0/result.json.*run the suite with this one"):
        products_of_run(run)


def test_one_product_stands_for_a_shape():
    """The most frequent, because one tile is kept for all of them; the most work comes first."""
    other, small = linear("2048x1280x1280", "bfloat16"), linear("64x64x64", "bfloat16")
    assert [PLAIN, small] == one_per_shape(Counter({other: 2, PLAIN: 5, small: 9}))
