"""The search for tiles: which products, which candidates, what is found and kept, what is said."""

from __future__ import annotations

import importlib
import json
import os
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch

from tfq_bench.api import LoweringError, NothingToDo, StoreError, UsageError
from tfq_bench.store import RunFolder
from tfq_bench_cuda import cli, machine, stopwatch, watchdog
from tfq_bench_cuda.backend import CudaBackend
from tfq_bench_cuda.kernels import tuned
from tfq_bench_cuda.kernels.borders import Geometry
from tfq_bench_cuda.kernels.reference import ReferenceKernels
from tfq_bench_cuda.kernels.specs import ConvSpec, Ending, LinearSpec, Tile
from tfq_bench_cuda.kernels.tiles import ARCHITECTURES, TileChoice, candidates
from tfq_bench_cuda.kernels.wider import other_pipelines, other_shapes
from tfq_bench_cuda.products import SQUARE, Product, describe_products
from tfq_bench_cuda.tune import search, table
from tfq_bench_cuda.wanted import conv, linear, one_per_shape, products_of_run
from tfq_bench_cuda.watchdog import Lost, Watched

PLAIN = linear("2048x1280x1280:residual", "bfloat16")
SHARED = {"sm_80": 164, "sm_86": 100, "sm_89": 100, "sm_90a": 228}
"""KiB of a multiprocessor, by the CUDA programming guide."""


@pytest.fixture(autouse=True)
def tiles_file(tmp_path, monkeypatch):
    """Tiles of this test alone."""
    path = tmp_path / "tiles.json"
    monkeypatch.setenv(tuned.VARIABLE, str(path))
    tuned._read.cache_clear()
    yield path
    tuned._read.cache_clear()


# Products.


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


def cell(key: str, backend: str, lower: str) -> dict:
    """One cell of a `plan.json`."""
    stages = {"calibrate": None, "quantize": "q", "measure": None, "sample": [], "evaluate": []}
    return {
        "key": key,
        "label": key,
        "variant": "",
        "axes": {"backend": backend},
        "status": "planned",
        "reason": None,
        "execution": "lowered",
        "reference": None,
        "plugins": [],
        "keys": {**stages, "lower": lower},
        "made_of": {},
    }


@pytest.fixture
def run_folder(tmp_path):
    """A run whose cells lowered what is given: `run_folder(details, ...)`; None for not yet."""

    def made(*details, backend="cuda"):
        folder = RunFolder.prepare(tmp_path / "run")
        cells = [cell(f"c{number}", backend, f"l{number}") for number in range(len(details))]
        plan = {
            "schema": 2,
            "id": "p",
            "suite": {"name": "s"},
            "shards": [],
            "cells": cells,
            "ingredients": {},
        }
        folder.write("", plan)
        for number, content in enumerate(details):
            if content is not None:
                with folder.artefacts.create("lower", f"l{number}") as path:
                    (path / "result.json").write_text(json.dumps({"details": content}))
        return folder.path

    return made


def entries(*products, count=1) -> dict:
    """Details of a lowered network."""
    tile = {"m": 64, "n": 64, "k": 32, "stages": 4, "threads": 128, "whole_rows": True}
    return {"products": [{**one.to_json(), "tile": tile, "count": count} for one in products]}


def test_products_of_a_run(run_folder):
    """Of all cells that are lowered, each as often as the cell that has most of it."""
    image = conv("2x8x8x32x64", "float32")
    run = run_folder(entries(PLAIN, count=3), None, entries(PLAIN, image))
    assert Counter({PLAIN: 3, image: 1}) == products_of_run(run)


def test_a_run_without_products(run_folder, tmp_path):
    """Nothing is lowered, or by other backends: nothing to do. No run is a wrong argument."""
    with pytest.raises(NothingToDo, match="no cell of backend 'cuda' is lowered"):
        products_of_run(run_folder(None))
    with pytest.raises(NothingToDo):
        products_of_run(run_folder(entries(PLAIN), backend="openvino"))
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
def test_products_of_another_version_are_a_sentence(run_folder, details):
    """It names the file and what to do."""
    run = run_folder(entries(PLAIN))
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


# Candidates.


@pytest.mark.parametrize("arch", ARCHITECTURES.values())
@pytest.mark.parametrize("sums", [1, 2])
@pytest.mark.parametrize("shape", [(2048, 5120, 1280), (8192, 320, 320), (1, 96, 32)])
def test_candidates_fit_registers_and_shared_memory(arch, sums, shape):
    """By arithmetic, for each shape and each pipeline; a step does not straddle two taps."""
    first = other_shapes(*shape, arch, accumulators=sums)
    assert set(candidates(*shape, arch, accumulators=sums)) <= set(first)
    assert sums == 2 or len(first) > len(candidates(*shape, arch, accumulators=sums))
    more = [
        other
        for tile in first
        for other in other_pipelines(tile, shape[2], arch, accumulators=sums)
    ]
    assert not set(first) & set(more) or shape[2] == 32
    for tile in first + more:
        assert sums * tile.m * tile.n <= (160 if tile.threads <= 256 else 96) * tile.threads
        assert (tile.m + sums * tile.n) * tile.k * tile.stages < SHARED[arch] * 1024
        assert max(tile.m, tile.n) <= 256
        assert shape[2] % tile.k == 0
        assert tile.stages >= 2
        if tile.whole_rows:
            assert tile.m >= tile.threads // 32 * 16
            assert tile.n % 16 == 0


# The search.


class FakeCalls:
    """A stopwatch that has read its times from a table.

    Args:
        times: microseconds of a tile; 50 of every other.
        broken, other_bits, hanging, inexact: tiles that are so.
    """

    def __init__(self, times, *, broken=(), other_bits=(), hanging=(), inexact=()):
        self.known = times
        self.broken, self.other_bits, self.hanging = broken, other_bits, hanging
        self.inexact = inexact
        self.compiled = []

    def call(self, name, *args, seconds=None):
        return getattr(self, name)(*args)

    def compile(self, tried):
        self.compiled.append([tile for _, tile in tried])
        return [tile not in self.broken for _, tile in tried]

    def same(self, product, tile, first):
        assert tile not in self.broken
        if tile in self.hanging:
            raise Lost("did not end in 30 s")
        return tile not in self.other_bits

    def microseconds(self, product, tiles, rounds):
        assert not {*self.broken, *self.other_bits, *self.hanging} & set(tiles)
        return [self.known.get(tile, 50.0) for tile in tiles]

    def exact(self, product, tile):
        return tile not in self.inexact

    def close(self):
        """Nothing to end."""


BEFORE, *OTHERS = other_shapes(2048, 1280, 1280, "sm_90a")
PIPELINE = replace(OTHERS[0], k=64, stages=6)


def found(calls, product=PLAIN, shapes=5):
    """The finding for one product."""
    (finding,) = search([product], "sm_90a", calls, shapes=shapes)
    return finding


def test_the_fastest_of_both_rounds_is_found():
    """Other depths and stages are tried for the two best shapes, and nothing twice."""
    calls = FakeCalls({OTHERS[0]: 40.0, PIPELINE: 30.0})
    finding = found(calls)
    assert (finding.before, finding.found) == (BEFORE, PIPELINE)
    assert finding.ratio == 50 / 30
    assert finding.better
    first, second = calls.compiled
    assert [BEFORE, *OTHERS[:4]] == first
    assert {(tile.m, tile.n) for tile in second} == {(t.m, t.n) for t in (OTHERS[0], BEFORE)}
    assert len(set(first + second)) == len(first + second)


def test_a_tile_that_is_hardly_faster_is_not_kept():
    """Less than 2 % is within what times vary."""
    assert not found(FakeCalls({OTHERS[0]: 49.1})).better
    assert found(FakeCalls({OTHERS[0]: 49.0})).better


def test_what_does_not_work_is_left_out_and_said():
    """Not compiled, hanging, other bits, or wrong in the self-test: none of them is found."""
    calls = FakeCalls(
        {OTHERS[0]: 1.0, OTHERS[1]: 1.0, OTHERS[2]: 1.0, OTHERS[3]: 40.0},
        broken=[OTHERS[0]],
        hanging=[OTHERS[1]],
        other_bits=[OTHERS[2]],
    )
    finding = found(calls)
    assert (finding.found, finding.us_found) == (OTHERS[3], 40.0)
    assert dict(finding.left_out) == {
        OTHERS[0]: "does not compile",
        OTHERS[1]: "did not end in 30 s",
        OTHERS[2]: "gives other bits",
    }
    calls = FakeCalls({OTHERS[0]: 1.0}, inexact=[OTHERS[0]])
    finding = found(calls)
    assert not finding.better
    assert (OTHERS[0], "does not pass the self-test") in finding.left_out


def test_a_product_that_cannot_be_timed_keeps_its_tile():
    """The others are searched all the same."""
    calls = FakeCalls({OTHERS[0]: 40.0}, hanging=[BEFORE])
    finding = found(calls)
    assert (finding.found, finding.us_before, finding.better) == (BEFORE, None, False)
    image = conv("2x64x64x640x640:shift", "bfloat16")
    both = list(search([PLAIN, image], "sm_90a", calls, shapes=5))
    assert [None, 50.0] == [one.us_before for one in both]


def test_a_search_without_a_compiler_is_a_sentence():
    """Not one candidate after the other fails."""

    class Dead(FakeCalls):
        def compile(self, tried):
            raise Lost("ended its process")

    with pytest.raises(LoweringError, match="cannot be compiled: ended its process"):
        found(Dead({}))


def test_the_table_has_shape_tiles_times_and_ratio():
    """As in the README; a product without times has none."""
    calls = FakeCalls({OTHERS[0]: 40.0, PIPELINE: 30.0})
    shown = table([found(calls), found(FakeCalls({}, hanging=[BEFORE]))]).splitlines()
    assert shown[2] == (
        f"| 2048x1280x1280 residual | {BEFORE}, {BEFORE.stages} stages | 50.00 "
        f"| {PIPELINE}, 6 stages | 30.00 | 1.667 | yes |"
    )
    assert shown[3].endswith("|  | the same |  |  |  |")


# The child process.


def test_a_call_that_hangs_is_ended():
    """The next one gets a process of its own."""
    with_time = Watched(partial(importlib.import_module, "time"))
    try:
        with pytest.raises(Lost, match=r"did not end in 0.2 s"):
            with_time.call("sleep", 600, seconds=0.2)
        assert with_time.call("sleep", 0, seconds=60) is None
    finally:
        with_time.close()


def test_a_call_that_fails_or_ends_its_process_is_lost():
    """What was raised is a sentence; an object that cannot be made, too."""
    with_os = Watched(partial(importlib.import_module, "os"))
    try:
        with pytest.raises(Lost, match="FileNotFoundError"):
            with_os.call("stat", "/no/such/file", seconds=60)
        with pytest.raises(Lost, match="ended its process"):
            with_os.call("_exit", 3, seconds=60)
        assert with_os.call("getpid", seconds=60) != os.getpid()
    finally:
        with_os.close()
    with pytest.raises(Lost, match="ModuleNotFoundError"):
        Watched(partial(importlib.import_module, "no_such_module")).call("anything")


# The command.


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command on a machine that is made up: `command(times, words...)`."""

    def run(times, *words, **calls):
        calls = FakeCalls(times, **calls)
        monkeypatch.setattr(machine, "check_machine", lambda _: "sm_90a")
        monkeypatch.setattr(watchdog, "Watched", lambda _: calls)
        code = cli.main(["tune", *words])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return run


def test_winners_are_kept_and_chosen_from_then_on(command, tiles_file, run_folder):
    """The second search starts from what the first one found."""
    times = {OTHERS[0]: 40.0}
    code, out, err = command(times, str(run_folder(entries(PLAIN))))
    assert code == 0
    assert f"1 of 1 tiles are kept in '{tiles_file}'" in out
    assert "1 products, 12 shapes" in err
    assert TileChoice(arch="sm_90a", rows=2048)(1280, 1280, PLAIN.ending) == OTHERS[0]
    code, out, _ = command(times, "--linear", "2048x1280x1280:residual")
    assert code == 0
    assert "nothing is kept" in out
    assert "| the same |" in out


def test_products_that_cannot_be_timed_are_said(command):
    """With the exit code of a run some of whose cells failed."""
    code, out, err = command({}, "--linear", "2048x1280x1280", hanging=[BEFORE])
    assert code == 3
    assert "nothing is kept" in out
    assert "1 of 1 products could not be timed" in err
    assert f"{BEFORE}, {BEFORE.stages} stages: did not end in 30 s" in err


def test_a_users_mistake_is_a_sentence(command, tiles_file, run_folder):
    """With the host's exit codes."""
    cases = [
        ((), 2, "expected a run folder, --linear or --conv"),
        (("--linear", "3x4"), 2, "3 whole numbers"),
        (("--shapes", "0"), 2, "from 1 to 1000"),
        (("--shape", "3"), 2, "unrecognized arguments"),
        (("--dtype", "int8", "--linear", "64x64x64"), 2, "invalid choice"),
        (("/no/such/run",), 2, "expected a run folder at '/no/such/run'"),
        ((str(run_folder(None)),), 5, "no cell of backend 'cuda' is lowered"),
    ]
    for words, expected, sentence in cases:
        code, _, err = command({}, *words)
        assert (expected, True) == (code, sentence in err), (words, err)
    tiles_file.write_text("{")
    code, _, err = command({}, "--linear", "64x64x64")
    assert code == 2
    assert f"'{tiles_file}': expected tiles" in err


def test_a_machine_without_a_gpu_is_a_sentence(capsys, monkeypatch):
    """Nothing is compiled."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["tune", "--linear", "64x64x64"]) == 2
    assert "needs an NVIDIA GPU" in capsys.readouterr().err


def test_an_unexpected_error_is_called_a_bug(monkeypatch, capsys):
    """The traceback is there for who asks for it."""

    def broken(_):
        raise RuntimeError("boom")

    monkeypatch.setattr(machine, "check_machine", broken)
    assert cli.main(["tune", "--linear", "64x64x64"]) == 70
    assert "Traceback" not in capsys.readouterr().err
    assert cli.main(["tune", "--linear", "64x64x64", "--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_help_names_the_command(capsys):
    """And where tiles are kept."""
    assert cli.main(["tune", "--help"]) == 0
    assert tuned.VARIABLE in capsys.readouterr().out


@pytest.mark.parametrize(
    "product",
    [
        linear("70x96x64:shift+gate+residual", "bfloat16"),
        linear("70x96x64:geglu+codes", "bfloat16"),
        conv("2x6x5x32x64:shift", "float16"),
        Product(
            rows=2 * 9,
            outputs=64,
            inputs=32,
            ending=Ending(partial=True),
            geometry=Geometry(kernel=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1)),
            size=(6, 6),
        ),
    ],
    ids=str,
)
def test_operands_fit_the_product(product):
    """As the kernels take them; every copy of the weights is another tensor."""
    stopwatch._operands.cache_clear()
    code, factors, additions = stopwatch._operands(product, "cpu")
    assert len({one.weight.data_ptr() for one in factors}) == len(factors) >= 2
    tile = Tile(m=64, n=64, k=32, stages=2, threads=128)
    spec = product.spec(tile, gathers=False)
    call = "linear" if isinstance(spec, LinearSpec) else "conv2d"
    y = getattr(ReferenceKernels(), call)(spec, code, factors[1], additions)
    assert y.shape == (product.rows, product.outputs)
    assert y.dtype == getattr(torch, product.ending.out)
    if product.ending.out == "int8":
        assert 20 < len(y.unique())
    stopwatch._operands.cache_clear()


@pytest.mark.gpu
def test_tiles_are_found_on_a_gpu(capsys):
    """Two small products, really compiled and timed; nothing is left out."""
    words = ["--linear", "256x320x320:residual", "--conv", "2x16x16x64x64:shift", "--shapes", "3"]
    assert cli.main(["tune", *words]) == 0
    said = capsys.readouterr()
    lines = [line for line in said.out.splitlines() if line.startswith("| ")][2:]
    assert len(lines) == 2
    assert all(float(line.split("|")[3]) > 0 for line in lines)
    assert "stages:" not in said.err
