"""8-bit attention: its arithmetic in Triton's interpreter, and its compiled code."""

from __future__ import annotations

import importlib.util
import re
import sys
from typing import Any

import pytest
import torch

from tfq_bench_cuda.kernels.attention import attend, attention8, prepare_keys
from tfq_bench_cuda.kernels.attention_reference import codes_of, sample
from tfq_bench_cuda.kernels.attention_specs import Blocks, choose_blocks, parts

from .attention_numbers import error, exact, exact_masked, hiding, operands, table

PROGRAMS = (
    "tfq_bench_cuda.kernels.attention_key_programs",
    "tfq_bench_cuda.kernels.attention_programs",
)

SMALL = Blocks(queries=64, keys=64, warps=4, stages=2)


@pytest.fixture
def interpreted(monkeypatch):
    """The launches of `attention` run in Triton's interpreter, on the CPU."""
    import numpy as np
    import triton.language as tl
    from triton.runtime import JITFunction, interpreter

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for name in PROGRAMS:
        spec = importlib.util.find_spec(name)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)

    def interpret(self, *args, **options):
        scope = interpreter._patch_lang(self.fn)
        try:
            return interpreter.InterpretedFunction(self.fn).rewrite()(*args, **options)
        finally:
            scope.restore()

    # `tl.sum` and its like are compiled functions where Triton was imported without the variable.
    monkeypatch.setattr(JITFunction, "__call__", interpret)

    # The interpreter keeps bfloat16 as uint16 and multiplies these integers.
    builder = interpreter.InterpreterBuilder
    create_dot = builder.create_dot

    def decoded(x):
        if x.dtype.scalar != tl.bfloat16:
            return x
        bits = x.data.astype(np.uint32) << 16
        return interpreter.TensorHandle(bits.view(np.float32), tl.float32)

    monkeypatch.setattr(
        builder,
        "create_dot",
        lambda self, a, b, *rest: create_dot(self, decoded(a), decoded(b), *rest),
    )


def launched(q, k, v, **options):
    """`attention8` without the way out for CPU tensors."""
    keys = {name: options.pop(name) for name in ("qk", "pv") if name in options}
    blocks = options.pop("blocks", None) or choose_blocks(q.shape[-1], k.shape[2], **keys)
    return attend(q, prepare_keys(k, v, blocks=blocks, **keys), blocks=blocks, **options)


@pytest.mark.parametrize(
    ("shape", "blocks"),
    [
        ((1, 2, 100, 256, 64), None),
        ((2, 1, 64, 77, 64), None),
        ((1, 1, 70, 130, 40), SMALL),
        ((1, 1, 64, 1, 72), None),
        ((1, 1, 30, 100, 160), None),
        ((1, 2, 40, 90, 32), SMALL),
        ((1, 2, 40, 128, 80), SMALL),
        ((1, 1, 40, 128, 96), SMALL),
    ],
)
def test_programs_compute_attention(interpreted, shape, blocks):
    """Whole blocks, tails, padded channels: as near to float64 as 8-bit operands are."""
    q, k, v = operands(*shape)
    found = launched(q, k, v, blocks=blocks)
    assert found.shape == q.shape
    assert found.dtype == q.dtype
    assert found.transpose(1, 2).is_contiguous()
    assert error(found, exact(q, k, v)) < 0.015
    assert error(found, attention8(q, k, v, blocks=blocks)) < 0.01


def test_programs_and_reference_are_the_same_arithmetic(interpreted):
    """Where the interpreter rounds p as a GPU does, in float16, only the order of sums differs."""
    q, k, v = operands(1, 2, 64, 200, 64, dtype=torch.float16)
    assert error(launched(q, k, v), attention8(q, k, v)) < 0.001


@pytest.mark.parametrize(
    ("dtype", "peak", "options", "most"),
    [
        (torch.bfloat16, 12.0, {}, 0.05),  # the largest logit is followed
        (torch.float16, 1.0, {}, 0.012),
        (torch.bfloat16, 1.0, {"qk": "bf16"}, 0.006),
        (torch.bfloat16, 1.0, {"scale": 0.5}, 0.05),
        # The interpreter truncates where a GPU rounds to e4m3.
        (torch.bfloat16, 1.0, {"pv": "fp8"}, 0.12),
    ],
    ids=["moving maximum", "float16", "16-bit products", "scale", "fp8"],
)
def test_programs_compute_attention_in_every_mode(interpreted, dtype, peak, options, most):
    """A row's maximum that moves, other dtypes and products, against float64."""
    q, k, v = operands(1, 2, 64, 200, 64, dtype=dtype, peak=peak)
    found = launched(q, k, v, blocks=SMALL, **options)
    assert error(found, exact(q, k, v, options.get("scale"))) < most


@pytest.mark.parametrize(("length", "hidden"), [(77, 70), (128, 128), (300, 299)])
def test_programs_add_a_mask_of_keys(interpreted, length, hidden):
    """Blocks whose keys are all hidden, also before any that is not, and images without keys."""
    q, k, v = operands(2, 2, 40, length, 72)
    mask = hiding(q, length, hidden)
    found = launched(q, k, v, qk="bf16", mask=mask)
    assert error(found, exact_masked(q, k, v, mask)) < 0.006
    assert error(found, attention8(q, k, v, qk="bf16", mask=mask)) < 0.006
    flipped = launched(q, k.flip(2), v.flip(2), qk="bf16", mask=mask.flip(1))
    assert error(flipped, found) < 0.006


def test_a_mask_may_hide_by_infinity(interpreted):
    """As torch's own masks do; a running maximum of minus infinity would give NaN."""
    q, k, v = operands(2, 1, 16, 100, 32)
    mask = torch.zeros(2, 100, dtype=q.dtype)
    mask[:, :80] = float("-inf")
    found = launched(q, k, v, qk="bf16", mask=mask)
    assert error(found, exact(q, k[:, :, 80:], v[:, :, 80:])) < 0.006


def test_both_ways_to_subtract_the_maximum_agree(interpreted, monkeypatch):
    """Bounded logits need no running maximum; dtype float16 never takes that way."""
    q, k, v = operands(1, 1, 64, 200, 64)
    bounded = launched(q, k, v, blocks=SMALL)
    monkeypatch.setattr(sys.modules[PROGRAMS[1]], "_BOUND", 0.0)
    assert error(bounded, launched(q, k, v, blocks=SMALL)) < 0.004


@pytest.mark.parametrize(("qk", "step"), [("int8", 0), ("int8", 1), ("int8", 2), ("bf16", 5)])
def test_programs_write_codes_of_the_next_layer(interpreted, qk, step):
    """At any step, the last for all later ones; saturated, with zeros up to the padded width."""
    q, k, v = operands(2, 3, 33, 77, 40)
    codes, step = table(120), torch.tensor([step])
    found = launched(q, k, v, qk=qk, codes=codes, step=step)
    assert found.shape == (2, 33, 128)
    assert found.dtype == torch.int8
    expected = attention8(q, k, v, qk=qk, codes=codes, step=step)
    assert (found.int() - expected.int()).abs().max() <= 2
    assert (found == expected).float().mean() > 0.8
    assert not found[..., 120:].any()


def test_codes_with_one_entry_need_not_look_at_the_step(interpreted):
    """4-bit codes, the same at all steps."""
    q, k, v = operands(1, 2, 16, 40, 32)
    codes = table(64, bits=4, inverse=torch.tensor([5.0]), zero_point=torch.tensor([8]).int())
    found = launched(q, k, v, codes=codes, step=torch.tensor([7]))
    assert found.min() >= -128
    assert found.max() <= -113
    assert (found == attention8(q, k, v, codes=codes, step=torch.tensor([7]))).float().mean() > 0.9


def test_codes_are_those_of_the_quantization_kernel():
    """Rounded half to even, clamped, less 128, heads beside each other."""
    x = torch.tensor([-9.0, -0.5, 0.5, 1.5, 2.5, 300.0]).view(1, 2, 1, 3)
    codes = table(6, inverse=torch.tensor([1.0]), zero_point=torch.tensor([2]).int())
    found = codes_of(x, codes, torch.tensor([0]))
    assert found[0, 0, :6].tolist() == [-128, -126, -126, -124, -124, 127]
    assert found.shape == (1, 1, 32)


def test_keys_are_smoothed_by_the_same_vector_in_every_block():
    """It is the mean of tokens from the whole head, none twice where there are enough."""
    for length in (1, 63, 64, 77, 1024, 4096):
        drawn = sample(length).tolist()
        assert len(set(drawn)) == len(drawn) == min(length, 64)
    columns = {token % 64 for token in sample(4096).tolist()}
    assert len(columns) == 64


def test_smoothing_is_what_makes_8_bits_enough():
    """Without it, what the keys have in common takes up the codes."""
    q, k, v = operands(1, 2, 64, 256, 64)
    mean = k.float().mean(2, keepdim=True)
    far = (k.float() + 20 * mean).to(k.dtype)
    assert error(attention8(q, k, v), exact(q, k, v)) < 0.015
    assert error(attention8(q, far, v), exact(q, far, v)) < 0.02


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda q, k, v: attention8(q[..., :24], k[..., :24], v[..., :24]), "one of (32, 40"),
        (lambda q, k, v: attention8(q.float(), k, v), "q is expected as bfloat16 or float16"),
        (lambda q, k, v: attention8(q, k, v[:, :, 1:]), "v is expected as k"),
        (
            lambda q, k, v: attention8(q, k, v, pv="int8"),
            "found 'int8' and 'int8'",
        ),
        (lambda q, k, v: attention8(q, k, v, qk="bf16", pv="fp8"), "pv 'fp8' needs qk 'int8'"),
        (lambda q, k, v: attention8(q[:, :1], k, v), "same heads"),
        (lambda q, k, v: attention8(q, k, v, codes=table(64)), "with a step"),
        (lambda q, k, v: attention8(q, k, v, scale=-1.0), "above 0, found -1.0"),
        (
            lambda q, k, v: attention8(q, k, v, mask=torch.zeros(1, 32, dtype=q.dtype)),
            "a mask is expected with qk 'bf16'",
        ),
        (
            lambda q, k, v: attention8(q, k, v, qk="bf16", mask=torch.zeros(1, 16, dtype=q.dtype)),
            "in torch.bfloat16 [1, 32]",
        ),
    ],
)
def test_what_it_cannot_take_is_refused_in_a_sentence(change, says):
    """With what was expected and what was found."""
    with pytest.raises(ValueError, match=re.escape(says)):
        change(*operands(1, 2, 16, 32, 32))


def test_keys_of_other_blocks_are_refused(interpreted):
    """Their scales would be read at the wrong places."""
    q, k, v = operands(1, 1, 16, 32, 32)
    keys = prepare_keys(k, v, blocks=Blocks(queries=64, keys=128, warps=4, stages=2))
    with pytest.raises(ValueError, match="blocks of 128, expected 64"):
        attend(q, keys)


def compiled(
    blocks, capability, *, channels=64, qk8=True, pv8=False, mask=False, codes=False, even=True
):
    """The compiled program `attend`, as on a card of a capability such as 90; needs no GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from tfq_bench_cuda.kernels.attention_programs import attend as program

    first, rest = parts(channels)
    constants: dict[str, Any] = {"D": channels, "WIDTH": 1 << (channels - 1).bit_length()}
    constants |= {"FIRST": first, "REST": rest}
    constants |= {
        "M": blocks.queries,
        "N": blocks.keys,
        "UNIT": 8,
        "QK8": qk8,
        "PV8": pv8,
        "MASK": mask,
        "EVEN": even,
    }
    constants |= {"BOUNDS": qk8 and not pv8, "LAST": 255 * codes}
    types = {
        "mask": "*bf16",
        "q": "*bf16",
        "k": "*i8" if qk8 else "*bf16",
        "k_scale": "*fp32",
        "k_norm": "*fp32",
        "v_scale": "*fp32",
        "q8": "*i8",
    }
    types |= {"v": "*fp8e4nv" if pv8 else "*bf16", "out": "*i8" if codes else "*bf16"}
    types |= {"inverse": "*fp32", "zero_point": "*i32", "step": "*i64", "scale": "fp32"}
    names = program.arg_names
    signature = {name: types.get(name, "i32") for name in names}
    signature |= dict.fromkeys(constants, "constexpr")
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(names)
        if name not in constants and name not in ("scale", "heads")
    }
    source = ASTSource(program, signature=signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": blocks.warps, "num_stages": blocks.stages}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def products(ptx):
    """Matrix instructions and their operands' types."""
    found = re.findall(
        r"(wgmma\.mma_async|mma\.sync)[\w.]*?m\d+n\d+k\d+[a-z.]*\.(\w+\.\w+\.\w+)", ptx
    )
    return {f"{name} {types}" for name, types in found}


@pytest.mark.parametrize(
    ("capability", "options", "expected"),
    [
        (90, {}, {"wgmma.mma_async s32.s8.s8", "wgmma.mma_async f32.bf16.bf16"}),
        (90, {"pv8": True}, {"wgmma.mma_async s32.s8.s8", "wgmma.mma_async f32.e4m3.e4m3"}),
        (90, {"codes": True, "channels": 72}, {"wgmma.mma_async s32.s8.s8"}),
        (90, {"qk8": False, "codes": True, "even": False}, {"wgmma.mma_async f32.bf16.bf16"}),
        (
            90,
            {"qk8": False, "mask": True, "codes": True, "channels": 72, "even": False},
            {"wgmma.mma_async f32.bf16.bf16"},
        ),
        (80, {}, {"mma.sync s32.s8.s8"}),
        (80, {"qk8": False, "codes": True, "even": False}, {"mma.sync f32.bf16.bf16"}),
    ],
    ids=["sm_90", "sm_90 fp8", "sm_90 codes", "sm_90 text", "sm_90 mask", "sm_80", "sm_80 text"],
)
def test_compiled_programs_multiply_on_tensor_cores(capability, options, expected):
    """int8 into int32, e4m3 and 16 bit into float32; text keys take both products in 16 bit."""
    names = {
        "qk": "int8" if options.get("qk8", True) else "bf16",
        "pv": "fp8" if options.get("pv8") else "bf16",
    }
    length = 1024 if options.get("even", True) else 300 if options.get("mask") else 77
    blocks = choose_blocks(options.get("channels", 64), length, **names)
    program = compiled(blocks, capability, **options)
    ptx = program.asm["ptx"]
    assert expected <= products(ptx)
    # Queries in shared memory: the assembler serializes products with registers.
    if capability == 90 and names["qk"] == "int8":
        assert re.search(r"s32\.s8\.s8 \{[^}]*\}, %rd", ptx)
