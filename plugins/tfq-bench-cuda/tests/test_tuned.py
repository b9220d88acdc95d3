"""The file of tiles that a search found: written, read, damaged; it wins over the model."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace

import pytest

from tfq_bench.api import LoweringError
from tfq_bench_cuda.kernels import tuned
from tfq_bench_cuda.kernels.searched import SEARCHED
from tfq_bench_cuda.kernels.specs import Ending, Tile
from tfq_bench_cuda.kernels.tiles import SHARED, TileChoice, choose_tile
from tfq_bench_cuda.kernels.tuned import found_by_search, keep, tiles_file

SHAPE = (2048, 1280, 1280, 1, 1)
TILE = Tile(m=64, n=96, k=64, stages=7, threads=128, whole_rows=True)


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    """A file of this test's own, which does not exist yet."""
    path = tmp_path / "there" / "tiles.json"
    monkeypatch.setenv(tuned.VARIABLE, str(path))
    tuned._read.cache_clear()
    yield path
    tuned._read.cache_clear()


def test_what_is_kept_is_found_by_arch_and_shape(file):
    """Nothing else is; the file reads the same for a process that starts later."""
    assert found_by_search("sm_90a", SHAPE) is None
    assert file == keep("sm_90a", {SHAPE: TILE})
    tuned._read.cache_clear()
    assert found_by_search("sm_90a", SHAPE) == TILE
    assert found_by_search("sm_80", SHAPE) is None
    assert found_by_search("sm_90a", (2048, 1280, 1280, 9, 1)) is None


def test_tiles_are_added_and_replaced(file):
    """Also to those that another process has written since."""
    keep("sm_90a", {SHAPE: TILE})
    held = json.loads(file.read_text())
    (key,) = held
    file.write_text(json.dumps({key.replace("2048", "4096"): asdict(TILE)} | held))
    keep("sm_90a", {SHAPE: replace(TILE, stages=3)})
    assert found_by_search("sm_90a", SHAPE) == replace(TILE, stages=3)
    assert found_by_search("sm_90a", (4096, *SHAPE[1:])) == TILE
    assert [file] == list(file.parent.iterdir())


def test_a_file_of_an_earlier_version_is_read(file):
    """It has none of the fields that have a default since."""
    keep("sm_90a", {SHAPE: TILE})
    held = json.loads(file.read_text())
    for value in held.values():
        for name in ("resident", "ahead"):
            del value[name]
    file.write_text(json.dumps(held))
    tuned._read.cache_clear()
    assert found_by_search("sm_90a", SHAPE) == TILE
    other = replace(TILE, resident=2, ahead=True)
    keep("sm_90a", {SHAPE: other})
    assert found_by_search("sm_90a", SHAPE) == other


def test_tiles_of_another_card_are_not_taken(monkeypatch):
    """Cards of one architecture differ in how many thread blocks run at once."""
    monkeypatch.setattr(tuned, "_card", lambda: "NVIDIA H100 80GB HBM3")
    keep("sm_90a", {SHAPE: TILE})
    monkeypatch.setattr(tuned, "_card", lambda: "NVIDIA H100 PCIe")
    assert found_by_search("sm_90a", SHAPE) is None


def test_a_search_wins_over_the_model():
    """For the product that it was made for, by its rows and by the sums of an output."""
    keep("sm_90a", {SHAPE: TILE})
    chooses = TileChoice(arch="sm_90a", rows=2048)
    assert chooses(1280, 1280, Ending(out="bfloat16")) == TILE
    expected = choose_tile(2048, 1280, 1280, "sm_90a", accumulators=2)
    assert chooses(1280, 1280, Ending(activation="geglu", out="int8")) == expected
    other = TileChoice(arch="sm_90a", rows=4096)
    assert other(1280, 1280, Ending()) == choose_tile(4096, 1280, 1280, "sm_90a")


@pytest.mark.parametrize(
    ("arch", "shape", "tile"),
    [(arch, *found) for arch, tiles in SEARCHED.items() for found in tiles.items()],
    ids=str,
)
def test_tiles_that_come_along_win_over_the_model_and_not_over_a_search(arch, shape, tile):
    """Each is another than the model's; what this machine's search found is still the first."""
    rows, outputs, inputs, taps, sums = shape
    ending = Ending(activation="geglu", out="int8") if sums == 2 else Ending(out="bfloat16")
    chooses = TileChoice(arch=arch, rows=rows)
    assert chooses(outputs, inputs, ending, taps=taps) == tile
    assert choose_tile(rows, outputs, inputs, arch, taps=taps, accumulators=sums) != tile
    assert inputs % tile.k == 0
    assert (tile.m + tile.n * sums) * tile.k * tile.stages <= SHARED[arch] * 1024
    keep(arch, {shape: replace(tile, stages=2)})
    assert chooses(outputs, inputs, ending, taps=taps) == replace(tile, stages=2)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-20],
        lambda _: "[]",
        lambda _: "null",
        lambda text: text.replace('"stages": 7', '"stages": 0'),
        lambda text: text.replace('"stages": 7', '"stages": true'),
        lambda text: text.replace('"stages": 7', '"stages": "7"'),
        lambda text: text.replace('"whole_rows": true', '"whole_rows": 1'),
        lambda text: text.replace('"threads"', '"thread"'),
        lambda text: text.replace('"ahead": false', '"ahead": 0'),
        lambda text: text.replace('"resident": 1', '"resident": true'),
        lambda text: text.replace('"k": 64', '"k": 96'),
    ],
)
def test_a_damaged_file_is_a_sentence(file, change):
    """It says which file, and that it may be deleted; nothing is written over it."""
    keep("sm_90a", {SHAPE: TILE})
    damaged = change(file.read_text())
    assert damaged != file.read_text()
    file.write_text(damaged)
    tuned._read.cache_clear()
    with pytest.raises(LoweringError, match=f"{re.escape(str(file))}.*Delete the file"):
        found_by_search("sm_90a", SHAPE)
    if '"k": 96' not in damaged:
        with pytest.raises(LoweringError):
            keep("sm_90a", {SHAPE: TILE})
    assert file.read_text() == damaged


def test_where_the_file_is(monkeypatch, tmp_path):
    """In the user's cache, unless the variable names another."""
    monkeypatch.delenv(tuned.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tiles_file() == tmp_path / "tfq-bench" / "cuda-tiles.json"
