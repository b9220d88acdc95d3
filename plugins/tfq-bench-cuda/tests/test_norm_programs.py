"""What Triton makes of the norms' kernels, without a GPU: wide copies, no fused rounding.

Needs the extra `tilelang` of this distribution where torch is a build without CUDA.
"""

from __future__ import annotations

import re

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tfq_bench_cuda.kernels import norm_launch, norm_programs
from tfq_bench_cuda.kernels.norms import Table


class Launches:
    """Stands in for `norm_programs`: keeps what would be launched, and runs nothing."""

    def __init__(self):
        self.programs = norm_programs
        self.kept = []

    def __getattr__(self, name):
        return Named(name, self.kept)

    def compiled(self, capability):
        """PTX of each launch, by the name of its kernel."""
        return {name: self._compile(name, *rest, capability) for name, *rest in self.kept}

    def _compile(self, name, arguments, settings, capability):
        kernel = getattr(self.programs, name)
        constants = dict(settings)
        options = {key: constants.pop(key) for key in ("num_warps", "enable_fp_fusion")}
        values = dict(zip(kernel.arg_names, arguments, strict=False))
        constants |= {key: value for key, value in values.items() if value is None}
        places = {key: place for place, key in enumerate(kernel.arg_names)}
        aligned = {}
        signature = {
            key: "constexpr" if key in constants else typed(values[key], (places[key],), aligned)
            for key in kernel.arg_names
        }
        source = ASTSource(
            fn=kernel,
            signature=signature,
            constexprs={(places[key],): value for key, value in constants.items()},
            attrs=aligned,
        )
        target = GPUTarget("cuda", capability, 32)
        return triton.compile(source, target=target, options=options).asm["ptx"]


class Named:
    """A kernel of `Launches`: `kernel[grid](...)`."""

    def __init__(self, name, kept):
        self.name = name
        self.kept = kept

    def __getitem__(self, grid):
        return lambda *arguments, **constants: self.kept.append((self.name, arguments, constants))


def typed(value, path, aligned):
    """Triton's name for the type of an argument; notes which ones are multiples of 16."""
    if isinstance(value, tuple):
        return tuple(typed(inner, (*path, at), aligned) for at, inner in enumerate(value))
    if isinstance(value, torch.Tensor):
        aligned[path] = [["tt.divisibility", 16]]
        names = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
        name = str(value.dtype).removeprefix("torch.")
        return "*" + names.get(name, name.replace("int", "i"))
    if path[-1:] == (1,) and isinstance(value, int):
        aligned[path] = [["tt.divisibility", 16]]  # the stride of rows
    return "fp32" if isinstance(value, float) else "i32"


@pytest.fixture
def launches(monkeypatch):
    """What the launching module launches while the test runs."""
    kept = Launches()
    monkeypatch.setattr(norm_launch, "programs", kept)
    return kept


def sdxl(images):
    """Launches all kernels at a width of SD-XL."""
    x = torch.zeros(images, 64, 320, dtype=torch.bfloat16)
    weight, step = torch.ones(320), torch.tensor([0])
    ones = torch.ones(3)
    table = Table(start=0, channels=320, bits=8, inverse=ones, zero_point=ones.int())
    settings = {"eps": 1e-5, "step": step, "tables": [table]}
    norm_launch.group_norm_codes(x, weight, weight, groups=32, silu=True, **settings)
    norm_launch.layer_norm_codes(x, weight, weight, **settings)
    norm_launch.row_codes(x.view(-1, 320), step=step, tables=settings["tables"])


@pytest.mark.parametrize("capability", [80, 90])
def test_compiled_kernels_read_and_write_16_bytes_at_once(launches, capability):
    """Nothing fuses product and sum unasked, which would round otherwise than the simulation."""
    sdxl(2)
    compiled = launches.compiled(capability)
    assert {"group_moments", "group_codes", "layer_codes", "plain_codes"} == compiled.keys()
    for name, ptx in compiled.items():
        assert f".target sm_{capability}" in ptx
        assert "ld.global.v4.b32" in ptx
        assert ("st.global.v4.b32" in ptx) == (name != "group_moments")
        assert ("fma.rn.f32" in ptx) == (name == "group_codes")


def test_both_parts_of_a_concatenation_are_read_by_one_kernel(launches):
    """Compiled with two pointers, in all that read pixels."""
    x, beside = (torch.zeros(2, 64, channels, dtype=torch.bfloat16) for channels in (320, 640))
    weight, step, ones = torch.ones(960), torch.tensor([0]), torch.ones(3)
    table = Table(start=0, channels=960, bits=8, inverse=ones, zero_point=ones.int())
    settings = {"step": step, "tables": [table]}
    norm_launch.group_norm_codes(
        x, weight, weight, groups=32, eps=1e-5, silu=True, beside=beside, **settings
    )
    rows = (part.view(128, -1) for part in (x, beside))
    norm_launch.row_codes(next(rows), beside=next(rows), **settings)
    compiled = launches.compiled(90)
    assert {"group_moments", "group_codes", "plain_codes"} == compiled.keys()


def test_threads_do_not_wait_for_each_other_while_they_read(launches):
    """Moments are added up in registers; shuffles and barriers come once, after the last pixel."""
    sdxl(2)
    ptx = launches.compiled(90)["group_moments"]
    ends = [
        (ptx.index(f"{found[1]}:"), found.start())
        for found in re.finditer(r"bra(?:\.uni)?\s+(\$L__BB\d+_\d+);", ptx)
    ]
    loop = max((ptx[start:end] for start, end in ends if start < end), key=len)
    assert loop.count("ld.global.v4.b32") == norm_launch.MOMENTS_DEEP
    assert "shfl" not in loop
    assert "bar.sync" not in loop


def test_a_row_is_read_with_all_that_it_needs_at_once(launches):
    """Weights and tables come while threads add up; behind that a program only computes."""
    sdxl(2)
    ptx = launches.compiled(90)["layer_codes"]
    assert ptx.rindex("ld.global") < ptx.index("shfl")


def test_a_modulated_norm_without_weights_compiles(launches):
    """As of DiT: scale and shift of an image, read before the sums too."""
    x, by = torch.zeros(2, 64, 1152, dtype=torch.bfloat16), torch.zeros(2, 1152)
    step, ones = torch.tensor([0]), torch.ones(3)
    table = Table(start=0, channels=1152, bits=8, inverse=ones, zero_point=ones.int())
    settings = {"eps": 1e-5, "step": step, "tables": [table]}
    norm_launch.layer_norm_codes(x, None, None, scale=by, shift=by, **settings)
    ptx = launches.compiled(90)["layer_codes"]
    assert ptx.rindex("ld.global") < ptx.index("shfl")


def test_another_batch_compiles_nothing(launches):
    """What is compiled in is the same for 2 and for 200 images."""
    sdxl(2)
    few = [(name, constants) for name, _, constants in launches.kept]
    launches.kept.clear()
    sdxl(200)
    assert few == [(name, constants) for name, _, constants in launches.kept]


@pytest.mark.parametrize(
    ("channels", "tiles"),
    [(72, (128, 0)), (320, (512, 0)), (640, (512, 128)), (960, (1024, 0)), (1024, (1024, 0)),
     (1152, (1024, 128)), (1280, (1024, 256))],
)  # fmt: skip
def test_rows_are_cut_into_tiles_with_few_empty_lanes(channels, tiles):
    """One tile, or a wide and a narrow one; narrow rows share a program instead."""
    assert norm_launch.row_tiles(channels) == tiles
