"""Stacked linear layers: the statement in torch, and the Triton kernel against it.

The kernel's tests are marked `gpu`. One test here runs these same tests on the CPU, in Triton's
interpreter.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
import triton
from torch import Tensor, nn
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tfq_bench.api import LoweringError, StepCursor
from tfq_bench.testing.by_hand import quantized_layer
from tfq_bench_cuda.blocks.fused import Unfusable
from tfq_bench_cuda.blocks.stacked_layers import StackedLayers, stackable
from tfq_bench_cuda.kernels import stacked as statement
from tfq_bench_cuda.kernels.reference import ReferenceKernels
from tfq_bench_cuda.kernels.specs import Tile, padded
from tfq_bench_cuda.kernels.stacked import check_stacked, stacked_linear
from tfq_bench_cuda.kernels.stacked_reference import Stack, stacked_reference
from tfq_bench_cuda.kernels.unpack import Scratch, pack
from tfq_bench_cuda.layers import CudaLinear

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"

CASES: dict[str, dict[str, Any]] = {
    "shared input, filled up": {"layers": 3, "rows": 2, "channels": 90, "n": 72, "shared": True},
    "six pieces": {"layers": 2, "rows": 3, "channels": 128, "n": 192, "pieces": 6},
    "many rows": {"layers": 2, "rows": 70, "channels": 64, "n": 40, "bits": 6},
    "packed": {"layers": 3, "rows": 2, "channels": 96, "n": 66, "packed": True, "pieces": 6},
    "packed, whole steps": {"layers": 2, "rows": 17, "channels": 256, "n": 64, "packed": True},
    "half": {"layers": 2, "rows": 2, "channels": 64, "n": 64, "dtype": torch.float16},
}


def made(
    layers: int,
    rows: int,
    channels: int,
    n: int,
    *,
    shared: bool = False,
    packed: bool = False,
    pieces: int = 1,
    bits: int = 8,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Stack, dict[str, Any]]:
    """An input, a stack with three steps, and how it is called."""
    generator = torch.Generator().manual_seed(0)
    (low, high), k = (-8, 8) if packed else (-128, 128), padded(channels)
    weight = torch.randint(low, high, (layers, n, k), generator=generator, dtype=torch.int8)
    weight[:, :, channels:] = 0
    scale = torch.rand(layers, 3, generator=generator) * 0.02 + 0.01
    top = 2**bits
    stack = Stack(
        weight=pack(weight.flatten(0, 1)).view(layers, n, -1) if packed else weight,
        sums=weight.sum(2, dtype=torch.int32),
        weight_scale=torch.rand(layers, n, generator=generator),
        bias=torch.randn(layers, n, generator=generator),
        scale=scale,
        inverse=scale.reciprocal(),
        zero_point=torch.randint(0, top, (layers, 3), generator=generator, dtype=torch.int32),
        channels=channels,
        bits=bits,
    )
    x = torch.randn(1 if shared else layers, rows, channels, generator=generator).to(dtype)
    return x, stack, {"out": dtype, "pieces": pieces}


def on_device(stack: Stack) -> Stack:
    """The stack where the kernel runs."""
    fields = {name: getattr(stack, name) for name in Stack.__dataclass_fields__}
    return Stack(**{k: v.to(DEVICE) if isinstance(v, Tensor) else v for k, v in fields.items()})


def run(x: Tensor, stack: Stack, step: int, **way: Any) -> Tensor:
    """The kernel's result, on the CPU."""
    from tfq_bench_cuda.kernels.stacked_program import launch

    given = torch.tensor([step], device=DEVICE)
    return launch(x.to(DEVICE), on_device(stack), given, **way).cpu()


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_kernel_gives_the_bits_of_the_statement(case):
    """At every step, a later one among them; SiLU leaves alone what it is given here."""
    x, stack, way = made(**case)
    for step in (0, 2, 5):
        expected = stacked_reference(x, stack, torch.tensor([step]), silu=False, **way)
        assert torch.equal(expected, run(x, stack, step, silu=False, **way))
        positive = 25.0 + x * 4
        expected = stacked_reference(positive, stack, torch.tensor([step]), silu=True, **way)
        assert torch.equal(expected, run(positive, stack, step, silu=True, **way))


@pytest.mark.gpu
def test_a_silu_comes_before_the_codes():
    """Where it bends; an `exp` of another library may move a code by one."""
    x, stack, way = made(**CASES["six pieces"])
    expected = stacked_reference(x, stack, torch.tensor([1]), silu=True, **way)
    found = run(x, stack, 1, silu=True, **way)
    one_code = 128 * stack.scale[:, 1].max() * stack.weight_scale.max()
    assert float((expected - found).abs().max()) <= 2 * float(one_code)
    assert float((expected != found).float().mean()) < 0.2


@pytest.mark.gpu
@pytest.mark.parametrize("packed", [False, True])
def test_the_self_test_passes(packed):
    """As it is run when a network is loaded."""
    _, stack, way = made(2, 2, 96, 72, packed=packed)
    if not INTERPRETED:
        for dtype in (torch.float32, torch.bfloat16):
            check_stacked(on_device(stack), dtype, shared=False, silu=True, **way)


def test_kernels_in_the_interpreter():
    """The tests above, on the CPU."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-n", "0", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{len(CASES) + 3} passed" in ran.stdout, ran.stdout


@pytest.mark.parametrize("packed", [False, True])
def test_the_self_test_has_teeth(monkeypatch, packed):
    """It compares, at all steps: one sum that is off by one is found."""
    _, stack, way = made(2, 2, 96, 72, packed=packed)
    check_stacked(stack, torch.float32, shared=False, silu=True, **way)

    def wrong(x, trial, step, **way):
        found = stacked_reference(x, trial, step, **way)
        found[-1, -1, -1, -1] += trial.weight_scale[0, 0] * (int(step) == 2)
        return found

    monkeypatch.setattr(statement, "stacked_linear", wrong)
    with pytest.raises(LoweringError, match="72 by 96: the kernel is not exact"):
        check_stacked(stack, torch.float32, shared=False, silu=True, **way)


def test_other_layouts_are_refused():
    """A number of layers, of channels or of pieces that does not fit, rows that are strided."""
    x, stack, way = made(2, 2, 64, 72)
    step = torch.tensor([0])
    for wrong in (x[:, :, :32], x.repeat(2, 1, 1), x.transpose(0, 1)[:1].expand(2, 2, 64)):
        with pytest.raises(ValueError, match="expected contiguous"):
            stacked_linear(wrong, stack, step, silu=False, **way)
    with pytest.raises(ValueError, match="in whole pieces"):
        stacked_linear(x, stack, step, silu=False, **{**way, "pieces": 5})


def layer(number: int, *, scratch: Scratch | None = None, **options: Any) -> CudaLinear:
    """One of 40 outputs of 90 channels, on the CPU."""
    with torch.random.fork_rng():
        torch.manual_seed(number)
        module = nn.Linear(options.pop("inputs", 90), 40)
    kept = quantized_layer(str(number), module, -1.0 - number, 2.0, **{"wbits": 4, **options})
    return CudaLinear(
        kept,
        ReferenceKernels(),
        StepCursor("cpu"),
        {},
        tiles=lambda *_, **__: Tile(m=128, n=128, k=32, stages=3, threads=256),
        device=torch.device("cpu"),
        dtype=torch.float32,
        scratch=scratch,
    )


@pytest.mark.parametrize("form", ["packed", "int8", "both"])
def test_stacked_layers_give_what_each_gives(form):
    """The same bits; each layer still right by itself, counted, and a view of the stack."""
    scratch = Scratch()
    layers = [
        layer(i, scratch=None if form == "int8" or (form, i) == ("both", 1) else scratch)
        for i in range(3)
    ]
    step = layers[0].step
    x = torch.randn(3, 5, 90, generator=torch.Generator().manual_seed(0))
    silu = nn.functional.silu
    together = StackedLayers(layers, torch.float32, silu=True)
    for index in range(3):
        for one in layers:
            one.step.set(index)
        expected = torch.stack([one(silu(rows)) for one, rows in zip(layers, x, strict=True)])
        assert torch.equal(expected, together(x).squeeze(1))
    step.set(0)
    assert {one.kernel for one in layers} == {"torch s8 stacked linear"}
    assert [3] * 3 == [one.executed["torch s8 stacked linear"] for one in layers]
    assert () == layers[0].running
    assert 3 * 40 * (48 if form == "packed" else 96) == sum(one.weight_bytes for one in layers)
    assert form != "packed" or scratch.nbytes == 40 * 96


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([layer(0), nn.Linear(90, 40)], "has no int8 kernel"),
        ([layer(0), layer(1, split=32)], "reads its input in parts"),
        ([layer(0), layer(1, abits=6)], "other shapes or bits"),
        ([layer(0), layer(1, inputs=64)], "other shapes or bits"),
    ],
)
def test_layers_that_differ_are_not_stacked(layers, reason):
    """And nothing of them is touched."""
    with pytest.raises(Unfusable, match=reason):
        stackable([nn.ModuleDict({"linear": one}) for one in layers], "linear")
    assert "" == layers[0].named


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("packed", [False, True])
def test_compiled_kernel_copies_16_bytes_ahead_and_multiplies_in_int8(capability, packed):
    """Without a GPU: DiT-XL's largest layers at two rows; no product is fused with a sum."""
    from tfq_bench_cuda.kernels.stacked_program import stacked

    types = {"x": "*bf16", "step": "*i64", "weight": "*u8" if packed else "*i8"}
    types |= dict.fromkeys(("sums", "zero_point"), "*i32")
    types |= dict.fromkeys(("weight_scale", "bias", "scale", "inverse", "y"), "*fp32")
    constants = {"N": 6912, "K": 1152, "CHANNELS": 1152, "BITS": 8, "SHARED": False}
    constants |= {"PACKED": packed, "SILU": True, "PIECES": 6, "BM": 16, "BN": 64, "BK": 128}
    names = stacked.arg_names
    source = ASTSource(
        fn=stacked,
        signature={
            name: types.get(name, "constexpr" if name in constants else "i32") for name in names
        },
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(at,): [["tt.divisibility", 16]] for at, n in enumerate(names) if n in types},
    )
    options = {"num_warps": 4, "num_stages": 4, "enable_fp_fusion": False}
    target = GPUTarget("cuda", capability, 32)
    ptx = triton.compile(source, target=target, options=options).asm["ptx"]
    assert "mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32" in ptx
    assert "cp.async.cg.shared.global" in ptx
    assert "fma.rn.f32" not in ptx
