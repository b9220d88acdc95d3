"""Compiling: from a spec to the text of its kernel, for any architecture and without a GPU."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
from pathlib import Path
from typing import Any

from tfq_bench_cuda.kernels.specs import ConvSpec, LinearSpec, ProductSpec, QuantizeSpec

__all__ = ["FLAGS", "compile_ptx", "configuration", "generate", "instruction", "program", "toolkit"]

FLAGS = ("-fmad=false",)
"""A product and a sum round one after the other, as in the simulation: no fused multiply-add."""


def toolkit() -> Path | None:
    """The CUDA toolkit of the wheel `nvidia-cuda-nvcc`, None when that is not installed.

    It has the version that this distribution asks for, unlike an `nvcc` that is on the PATH.
    """
    try:
        files = importlib.metadata.files("nvidia-cuda-nvcc") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files if file.name == "nvcc"]
    return found[0].resolve().parent.parent if found else None


def load() -> Any:
    """The module `tilelang`, told where the toolkit is; its progress messages are left out."""
    home = toolkit()
    if home is not None:
        os.environ["CUDA_HOME"] = str(home)
    import tilelang

    logging.getLogger("tilelang").setLevel(logging.WARNING)
    return tilelang


def program(spec: ProductSpec | QuantizeSpec) -> Any:
    """The TileLang program of a spec."""
    load()
    from tfq_bench_cuda.kernels import programs

    if isinstance(spec, QuantizeSpec):
        return programs.quantize(spec)
    return programs.linear(spec) if isinstance(spec, LinearSpec) else programs.conv2d(spec)


def configuration(spec: ProductSpec | QuantizeSpec) -> dict[str, bool]:
    """TileLang's pass options of a spec."""
    options = {"tl.disable_out_of_bound_warning": True}
    if isinstance(spec, ConvSpec) and spec.gather:
        # Threads write the pixels to shared memory themselves. `wgmma` reads it past the cache, and
        # TileLang puts the fence that this needs behind the barrier; `mma.sync` needs none.
        options["tl.disable_wgmma"] = True
        options["tl.disable_tma_lower"] = True
        options["tl.disable_warp_specialized"] = True
    return options


def instruction(source: str) -> str:
    """Which matrix instruction a kernel's source uses: `wgmma` or `mma.sync`."""
    return "wgmma" if re.search(r"wgmma_[sr]s<", source) else "mma.sync"


def generate(spec: ProductSpec | QuantizeSpec, arch: str) -> str:
    """CUDA source of a kernel for an architecture such as `sm_90a`; needs neither GPU nor nvcc."""
    tilelang = load()
    from tilelang.engine.lower import lower
    from tvm.target import Target

    target = Target({"kind": "cuda", "arch": arch})
    with target, tilelang.tvm.transform.PassContext(config=configuration(spec)):
        return str(lower(program(spec), target=target).kernel_source)


def compile_ptx(spec: ProductSpec | QuantizeSpec, arch: str) -> tuple[str, str]:
    """CUDA source and PTX of a kernel for an architecture; needs no GPU."""
    source = generate(spec, arch)
    from tilelang.contrib import nvcc

    options = [*nvcc.default_compile_options(), *FLAGS]
    ptx = nvcc.compile_cuda(source, "ptx", arch=arch, options=options)
    return source, ptx.decode()
