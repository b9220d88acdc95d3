"""Whether this machine can compile and run the kernels, without compiling any."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path

import torch

from tfq_bench.api import LoweringError
from tfq_bench_cuda.kernels.compiled import toolkit
from tfq_bench_cuda.kernels.tiles import ARCHITECTURES

__all__ = ["check_machine", "compiler"]

_TILELANG = "0.1.15"
"""The release whose kernels were measured; the language still changes from one to the next."""

_INSTALL = "install 'tfq-bench-cuda[tilelang]'"


def check_machine(device: str) -> str:
    """The architecture to compile for, a value of `ARCHITECTURES`.

    Raises:
        LoweringError: for another device, no GPU, a GPU without int8 tensor cores that TileLang
            knows, no TileLang of the right release, or no CUDA compiler.
    """
    if torch.device(device).type != "cuda":
        raise LoweringError(
            f"backend 'cuda' runs on device 'cuda', found '{device}'; "
            "set the suite's device to 'cuda' or choose another backend."
        )
    if not torch.cuda.is_available():
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPUs"
        raise LoweringError(
            "backend 'cuda' needs an NVIDIA GPU and its driver, but torch "
            f"{torch.__version__} ({build}) sees none; check `nvidia-smi`, or use backend "
            "'simulate' on this machine."
        )
    capability = torch.cuda.get_device_capability(device)
    if capability not in ARCHITECTURES:
        known = ", ".join(f"{major}.{minor}" for major, minor in ARCHITECTURES)
        raise LoweringError(
            f"backend 'cuda' has kernels for compute capabilities {known}; "
            f"{torch.cuda.get_device_name(device)} has {capability[0]}.{capability[1]}. Use "
            "backend 'simulate' on this machine."
        )
    _check_compilers()
    return ARCHITECTURES[capability]


def _check_compilers() -> None:
    if importlib.util.find_spec("tilelang") is None:
        raise LoweringError(f"backend 'cuda' compiles its kernels with TileLang: {_INSTALL}.")
    found = importlib.metadata.version("tilelang").partition("+")[0]
    if found != _TILELANG:
        raise LoweringError(
            f"backend 'cuda' needs TileLang {_TILELANG}, found {found}: {_INSTALL}."
        )
    if compiler() is None:
        raise LoweringError(f"backend 'cuda' needs the CUDA compiler nvcc: {_INSTALL}.")


def compiler() -> Path | None:
    """The `nvcc` that TileLang will call: the wheel's, else that of `CUDA_HOME` or of the PATH."""
    home = toolkit() or os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    found = shutil.which("nvcc")
    candidates = [Path(home) / "bin" / "nvcc"] if home else []
    candidates += [Path(found)] if found else []
    candidates.append(Path("/usr/local/cuda/bin/nvcc"))
    return next((path for path in candidates if path.is_file()), None)
