"""The parts of the GPU benchmarks that need no GPU."""

import contextlib
import json
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from tfq_bench.quant import find_layer
from tfq_bench.testing.tiny import load_tiny
from tfq_bench_cuda.backend import PASSES
from tfq_bench_cuda.blocks.fused import FusedBlock
from tfq_bench_cuda.kernels.reference import ReferenceKernels
from tfq_bench_cuda.kernels.specs import ConvSpec, Ending, LinearSpec

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The folder that a script of it finds first."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def loaded():
    """A model that has a sampler."""
    return load_tiny()


def state_of(loaded, wbits=8):
    """The state that is timed."""
    from gpu.states import observed_ranges, rounded_state

    return rounded_state(loaded, observed_ranges(loaded, images=2), wbits=wbits)


@pytest.mark.parametrize("wbits", [8, 4])
def test_the_state_is_that_of_rtn(loaded, wbits):
    """Weights are rounded as `rtn` rounds them, 8 bits at both ends; each table has every step."""
    from tfq_bench.quant import round_weight

    state = state_of(loaded, wbits)
    names = [layer.name for layer in loaded.topology.layers]
    assert names == list(state.layers)
    assert [8, 8] == [state.layers[name].wbits for name in ("conv_in", "conv_out")]
    for name, layer in state.layers.items():
        codes, scale, _ = round_weight(find_layer(loaded.network, name).weight, layer.wbits)
        (part,) = layer.parts
        assert torch.equal(codes, part.weight), name
        assert torch.equal(scale, part.scale), name
        assert len(loaded.sampler.timesteps) == len(part.activation.scale), name


def test_ranges_are_those_of_the_nearest_step(loaded):
    """Of first, middle and last; a layer that sees no timestep has one range."""
    from gpu.states import observed_ranges

    ranges = observed_ranges(loaded, images=2)
    low, high = ranges["first.time"]
    assert len(loaded.sampler.timesteps) == len(low) == len(high)
    assert 3 == len(set(high.tolist()))
    assert 1 == len(set(ranges["conv_in"][1].tolist()))
    assert bool((low < high).all())


def test_a_contestant_of_the_backend(loaded):
    """It runs the network, near full precision, and says its bytes and that nothing is fused."""
    from gpu import contestants
    from gpu.networks import Networks, call
    from gpu.timing import sqnr_db

    networks = Networks(full=loaded, half=loaded)
    way, lowered = contestants.cuda(
        networks, state_of(loaded), 2, "layers", kernels=ReferenceKernels()
    )
    assert "`cuda` W8A8, layers" == way.label
    assert sqnr_db(call(loaded, 2)(), way.run()) > 20
    weights = sum(layer.parts[0].weight.numel() for layer in state_of(loaded).layers.values())
    assert weights < way.bytes < 4 * weights
    assert any(note.startswith("0.0% of the quantized MACs") for note in way.notes)
    assert any(f"{len(lowered.kernels)} layers, 0 fall back" in note for note in way.notes)
    way, _ = contestants.cuda(
        networks, state_of(loaded), 2, "blocks", without=list(PASSES), kernels=ReferenceKernels()
    )
    assert "`cuda` W8A8, blocks, without modulations and concatenations" == way.label


def test_layers_of_fused_blocks_are_counted(loaded):
    """Those that an installed pass runs, and no others."""
    from gpu import contestants
    from gpu.networks import Networks

    state = state_of(loaded)
    networks = Networks(full=loaded, half=loaded)
    _, lowered = contestants.cuda(networks, state, 2, "layers", kernels=ReferenceKernels())
    block = lowered.network.get_submodule("first")

    class Pass(FusedBlock):
        """As it was."""

        def fused(self, *args, **kwargs):
            """What the block gives."""
            return self._single(*args, **kwargs)

    Pass("first", block, [block.conv1, block.conv2]).install()
    found = contestants.fused_layers(lowered.network, state)
    assert ["first.conv1", "first.conv2"] == found


def test_shared_storage_is_counted_once():
    """Views of one weight, as joined layers have, are that weight."""
    from gpu.contestants import resident_bytes

    module = nn.Module()
    whole = torch.zeros(8, 4, dtype=torch.int8)
    module.register_buffer("a", whole[:4])
    module.register_buffer("b", whole[4:])
    assert 32 == resident_bytes(module)


def test_a_compilation_is_given_up():
    """Also where a compiler would catch every exception."""
    from gpu.contestants import GaveUp, given_up_after

    def compile_long():
        with contextlib.suppress(Exception):
            time.sleep(60)

    with pytest.raises(GaveUp), given_up_after(1):
        compile_long()


class Attention(nn.Module):
    """Queries, keys and values of one input, as diffusers names them."""

    def __init__(self):
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(64, 64, bias=False) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(64, 64)])

    def forward(self, x):
        return self.to_out[0](self.to_q(x) + self.to_k(x) + self.to_v(x))


class Toy(nn.Module):
    """A convolution, an attention and a layer of its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(64, 64, 3, padding=1)
        self.attn1 = Attention()
        self.proj_in = nn.Linear(64, 64)

    def forward(self, x):
        rows = self.conv(x).flatten(2).transpose(1, 2)
        return self.attn1(self.proj_in(rows))


def toy_shapes(*, endings=True):
    """What a call of `Toy` for two images of 8x8 is made of."""
    from gpu.shapes import watched_shapes

    toy = Toy()
    names = [name for name, held in toy.named_modules() if isinstance(held, nn.Conv2d | nn.Linear)]
    return watched_shapes(toy, names, lambda: toy(torch.randn(2, 64, 8, 8)), endings=endings)


def test_shapes_of_a_call():
    """Layers of one input are one product; endings go by name."""
    found = {str(shape): count for shape, count in toy_shapes().items()}
    expected = {
        "3x3 64->64 @8x8": 1,
        "128x64x64": 1,
        "128x192x64 (3 layers)": 1,
        "128x64x64 residual": 1,
    }
    assert expected == found
    assert {"", "residual"} == {str(shape.ending) for shape in toy_shapes()}
    assert {""} == {str(shape.ending) for shape in toy_shapes(endings=False)}


def test_shapes_hold_all_multiplications(loaded):
    """As many as the topology counts."""
    from gpu.networks import call
    from gpu.shapes import watched_shapes

    names = [layer.name for layer in loaded.topology.layers]
    found = watched_shapes(loaded.network, names, call(loaded, 2), endings=True)
    macs = sum(layer.macs for layer in loaded.topology.layers)
    operations = sum(shape.operations * count for shape, count in found.items())
    assert 2 * 2 * macs == operations


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj", "geglu+codes"),
        ("down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2", "residual"),
        ("down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0", "residual"),
        ("up_blocks.0.resnets.2.conv1", "shift"),
        ("mid_block.resnets.0.conv2", "residual"),
        ("conv_in", ""),
    ],
)
def test_endings_by_name(name, ending):
    """As the fused blocks of a U-Net end them."""
    from gpu.shapes import ending_of

    assert ending == str(ending_of(name))


def test_calls_of_every_shape_agree():
    """The operands fit the kernels: the reference computes each, and BF16 has the same shape."""
    from gpu.products import bf16_call, int8_calls, specs_of

    for shape in toy_shapes():
        specs = specs_of(shape, "sm_90a", False, 2)
        assert all(
            isinstance(spec, LinearSpec if shape.geometry is None else ConvSpec) for spec in specs
        )
        calls = int8_calls(ReferenceKernels(), shape, specs, "cpu")
        assert len(specs) == len(calls)
        for run in calls.values():
            assert (shape.rows, shape.n) == tuple(run().shape)
        assert shape.rows * shape.n == bf16_call(shape, "cpu")().numel()


def test_a_geglu_has_half_the_outputs():
    """Codes `[rows, n / 2]` of `n` rows of weights."""
    from gpu.products import int8_calls, specs_of
    from gpu.shapes import Shape

    shape = Shape(rows=64, n=128, k=64, images=1, ending=Ending(activation="geglu", out="int8"))
    (run,) = int8_calls(
        ReferenceKernels(), shape, specs_of(shape, "sm_90a", False, 1), "cpu"
    ).values()
    assert (torch.int8, (64, 64)) == (run().dtype, tuple(run().shape))


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("s8_conv2d_kernel", "int8 convolution"),
        ("s8_linear_kernel_1", "int8 linear"),
        ("s8_quantize_rows_kernel", "rows quantized"),
        ("plain_codes", "rows quantized"),
        ("group_moments", "norm and quantize"),
        ("layer_codes", "norm and quantize"),
        ("void at::native::RowwiseMomentsCUDAKernel<c10::BFloat16>", "norm and quantize"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16", "attention"),
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits>", "attention"),
        ("quantize_keys", "attention"),
        ("nvjet_tst_128x256_64x4_1x2_h_bz_coopA_bias_TNN", "float products"),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc", "float products"),
        ("Memcpy DtoD (Device -> Device)", "copies"),
        ("void at::native::vectorized_elementwise_kernel<4>", "elementwise"),
        ("something_else", "other"),
    ],
)
def test_kernels_are_grouped(name, group):
    """By what they are for, not by whose they are."""
    from gpu.profiles import group_of

    assert group == group_of(name)


def test_groups_are_ranked():
    """The longest group first, its kernels below it, and shares that add up."""
    from gpu.profiles import KernelTime, lines

    kernels = [
        KernelTime(name="s8_linear_a", launches=3, us=30.0),
        KernelTime(name="s8_linear_b", launches=1, us=40.0),
        KernelTime(name="s8_conv2d", launches=2, us=30.0),
    ]
    assert [
        ["**int8 linear**", "4", "0.070", "70.0%"],
        ["`s8_linear_b`", "1", "0.040", "40.0%"],
        ["`s8_linear_a`", "3", "0.030", "30.0%"],
        ["**int8 convolution**", "2", "0.030", "30.0%"],
        ["`s8_conv2d`", "2", "0.030", "30.0%"],
    ] == lines(kernels)


def test_ratios_are_taken_within_a_round():
    """A clock that falls during the run cancels; a base that did not run has no ratio."""
    from gpu.timing import number, ratio, table

    times = {"base": [10.0, 20.0, 40.0], "mine": [5.0, 10.0, 20.0]}
    assert 2.0 == ratio(times, "base", "mine")
    assert "" == number(ratio(times, "absent", "mine"))
    assert "| a | b |\n| --- | ---: |\n| x | 1 |" == table(["a", "b"], [["x", "1"]])


def test_the_command_line(capsys):
    """Everything is measured without arguments; a network that is none is named."""
    import gpu_speed

    args = gpu_speed.parser().parse_args([])
    assert [] == args.network
    assert [8, 4] == args.widths
    assert ["layers", "layers+graph", "blocks", "blocks+graph"] == args.levels
    assert ["sdxl"] == gpu_speed.parser().parse_args(["sdxl", "--batch", "1", "2"]).network
    args = gpu_speed.parser().parse_args(["--without", "modulations", "concatenations"])
    assert list(PASSES) == args.without
    with pytest.raises(SystemExit):
        gpu_speed.main(["sdlx"])
    assert "found sdlx" in capsys.readouterr().err


@pytest.mark.parametrize(("masked", "products"), [(0, 3), (50, 1)])
def test_every_contestant_of_the_attentions_computes_the_same(masked, products):
    """Chosen and other blocks; codes have a row for each query. A mask leaves 16-bit products."""
    import gpu_attention

    shape = gpu_attention.Shape("small", 2, 2, 48, 77, 40, masked=masked)
    q, k, v = gpu_attention.operands(shape, "cpu")
    mask = gpu_attention.hiding(shape, q)
    expected, names = gpu_attention.exact(q, k, v, mask), set()
    for name, run, to_codes in gpu_attention.contestants(shape, q, k, v, mask, others=True):
        assert (run() - expected).norm() < 0.05 * expected.norm()
        assert 2 * 48 * 96 == to_codes().numel()
        names.add(name)
    assert len(names) > products * len(gpu_attention.BLOCKS)


def test_tables_go_on_where_they_stopped(tmp_path, monkeypatch, capsys):
    """A job that ended well is not run again; one that failed or lasts too long is said."""
    import gpu_tables

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SystemExit, match="2"):
        gpu_tables.main([str(tmp_path)])
    assert "expected a GPU that torch sees, found none" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(gpu_tables, "TUNED", {})
    monkeypatch.setattr(gpu_tables, "LEAST_S", 0)
    monkeypatch.setattr(
        gpu_tables,
        "JOBS",
        {"good": "echo table", "bad": "false", "long": "sleep 60", "where": "env"},
    )
    assert gpu_tables.main([str(tmp_path), "--minutes", "1", "--only", "g", "b", "w"]) == 1
    said = capsys.readouterr().out
    assert said.endswith("1 failed or left: bad\n")
    assert (tmp_path / "good.md").read_text() == "table\n"
    assert "TFQ_BENCH_CUDA_TILES=" in (tmp_path / "where.md").read_text()
    assert json.loads((tmp_path / "tiles.json").read_text()) == {}
    assert gpu_tables.main([str(tmp_path), "--minutes", "0.02"]) == 1
    said = capsys.readouterr().out
    assert "good" not in said
    assert "long, GPU" in said
    assert said.endswith("long\n")
