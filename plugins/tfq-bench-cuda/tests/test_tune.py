"""The search for tiles: which candidates, what is found and kept, what the command says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tfq_bench.api import LoweringError
from tfq_bench_cuda import cli, machine, stopwatch, watchdog
from tfq_bench_cuda.kernels import tuned
from tfq_bench_cuda.kernels.borders import Geometry
from tfq_bench_cuda.kernels.reference import ReferenceKernels
from tfq_bench_cuda.kernels.specs import Ending, LinearSpec, Tile
from tfq_bench_cuda.kernels.tiles import ARCHITECTURES, TileChoice, candidates
from tfq_bench_cuda.kernels.wider import other_pipelines, other_shapes, other_ways
from tfq_bench_cuda.products import Product
from tfq_bench_cuda.tune import search, table
from tfq_bench_cuda.wanted import conv, linear
from tfq_bench_cuda.watchdog import Lost

from .run_folders import entries, run_of

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
    ways = other_ways(shape[2], arch, accumulators=sums)
    assert bool(ways) == (arch == "sm_90a" and shape[2] % 64 == 0)
    assert len(ways) == len(set(ways))
    assert not set(first) & set(more) or shape[2] == 32
    for tile in first + more + ways:
        assert sums * tile.m * tile.n <= (160 if tile.threads <= 256 else 96) * tile.threads
        stages = (tile.m + sums * tile.n) * tile.k * tile.stages
        assert tile.resident * stages < SHARED[arch] * 1024
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
    """Two best shapes with other pipelines and ahead, blocks side by side; nothing twice."""
    calls = FakeCalls({OTHERS[0]: 40.0, PIPELINE: 30.0})
    finding = found(calls)
    assert (finding.before, finding.found) == (BEFORE, PIPELINE)
    assert finding.ratio == 50 / 30
    assert finding.better
    first, second = calls.compiled
    assert [BEFORE, *OTHERS[:4]] == first
    alone = [tile for tile in second if tile.resident == 1]
    assert {(tile.m, tile.n) for tile in alone} == {(t.m, t.n) for t in (OTHERS[0], BEFORE)}
    assert [replace(t, ahead=True) for t in (OTHERS[0], BEFORE)] == [t for t in alone if t.ahead]
    assert [tile for tile in second if tile.resident > 1] == other_ways(1280, "sm_90a")
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


def test_winners_are_kept_and_chosen_from_then_on(command, tiles_file, tmp_path):
    """The second search starts from what the first one found."""
    times = {OTHERS[0]: 40.0}
    code, out, err = command(times, str(run_of(tmp_path / "run", entries(PLAIN))))
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


def test_a_users_mistake_is_a_sentence(command, tiles_file, tmp_path):
    """With the host's exit codes."""
    cases = [
        ((), 2, "expected a run folder, --linear or --conv"),
        (("--linear", "3x4"), 2, "3 whole numbers"),
        (("--shapes", "0"), 2, "from 1 to 1000"),
        (("--shape", "3"), 2, "unrecognized arguments"),
        (("--dtype", "int8", "--linear", "64x64x64"), 2, "invalid choice"),
        (("/no/such/run",), 2, "expected a run folder at '/no/such/run'"),
        ((str(run_of(tmp_path / "run", None)),), 5, "no cell of backend 'cuda' is lowered"),
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
