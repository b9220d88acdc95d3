"""Settings of torch that change what is computed, or by which kernels: how to read and set them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.overrides
import torch.utils._python_dispatch
from torch.nn.modules import module as torch_modules

__all__ = ["TORCH", "Setting", "attribute"]

_GLOBAL_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)

_dispatch: Any = torch.utils._python_dispatch
_overrides: Any = torch.overrides
_mkldnn: Any = torch.backends.mkldnn

Setting = tuple[Callable[[], Any], Callable[[Any], Any]]


def attribute(owner: Any, name: str) -> Setting:
    """The setting that is an attribute, which this version of torch may lack."""
    return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)


def _deterministic() -> tuple[bool, bool]:
    mode = torch.are_deterministic_algorithms_enabled()
    return mode, torch.is_deterministic_algorithms_warn_only_enabled()


def _hooks() -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(getattr(torch_modules, name).items()) for name in _GLOBAL_HOOKS)


def _set_hooks(was: tuple[tuple[Any, ...], ...]) -> None:
    for name, items in zip(_GLOBAL_HOOKS, was, strict=True):
        held = getattr(torch_modules, name)
        held.clear()
        held.update(items)


def _denormals() -> bool:
    """Whether this thread keeps numbers below the smallest normal one."""
    return bool(torch.tensor(1e-310, dtype=torch.float64, device="cpu").mul(1.0) != 0.0)


def _modes() -> tuple[int, int]:
    return _dispatch._len_torch_dispatch_stack(), _overrides._len_torch_function_stack()


def _set_modes(was: tuple[int, int]) -> None:
    """Leaves the modes that were entered and never left."""
    while _dispatch._len_torch_dispatch_stack() > was[0]:
        _dispatch._pop_mode()
    while _overrides._len_torch_function_stack() > was[1]:
        _overrides._pop_mode()


def _attention() -> tuple[bool, ...]:
    """Which kernels of attention may be taken, on the CPU too."""
    cuda: Any = torch.backends.cuda
    kinds = (
        cuda.flash_sdp_enabled,
        cuda.mem_efficient_sdp_enabled,
        cuda.math_sdp_enabled,
        cuda.cudnn_sdp_enabled,
    )
    return tuple(kind() for kind in kinds)


def _set_attention(was: tuple[bool, ...]) -> None:
    cuda: Any = torch.backends.cuda
    cuda.enable_flash_sdp(was[0])
    cuda.enable_mem_efficient_sdp(was[1])
    cuda.enable_math_sdp(was[2])
    cuda.enable_cudnn_sdp(was[3])


def _set_inference(was: bool) -> None:
    mode: Any = torch.inference_mode(was)
    mode.__enter__()
    _kept.append(mode)  # it would end with the object


_kept: list[Any] = []


def _autocast_types() -> tuple[torch.dtype, ...]:
    return torch.get_autocast_dtype("cpu"), torch.get_autocast_dtype("cuda")


def _set_autocast_types(was: tuple[torch.dtype, ...]) -> None:
    torch.set_autocast_dtype("cpu", was[0])
    torch.set_autocast_dtype("cuda", was[1])


def _default_device() -> str:
    return str(torch.get_default_device())


def _set_default_device(was: str) -> None:
    torch.set_default_device(None)  # takes back what was put on top of the first one
    if _default_device() != was:
        torch.set_default_device(was)


TORCH: dict[str, Setting] = {
    "default device": (_default_device, _set_default_device),
    "modes": (_modes, _set_modes),  # before the others, which are read through them
    "torch threads": (torch.get_num_threads, torch.set_num_threads),
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "gradients": (torch.is_grad_enabled, torch.set_grad_enabled),
    "anomaly detection": (
        torch.is_anomaly_enabled,
        lambda was: torch.autograd.set_detect_anomaly(was),
    ),
    "autocast": (
        lambda: torch.is_autocast_enabled("cpu"),
        lambda was: torch.set_autocast_enabled("cpu", was),
    ),
    "autocast on cuda": (
        lambda: torch.is_autocast_enabled("cuda"),
        lambda was: torch.set_autocast_enabled("cuda", was),
    ),
    "deterministic algorithms": (
        _deterministic,
        lambda was: torch.use_deterministic_algorithms(was[0], warn_only=was[1]),
    ),
    "float32 precision": attribute(torch.backends, "fp32_precision"),
    "float32 products": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "mkldnn.matmul precision": attribute(_mkldnn.matmul, "fp32_precision"),
    "mkldnn.conv precision": attribute(_mkldnn.conv, "fp32_precision"),
    "cuda.matmul.allow_tf32": attribute(torch.backends.cuda.matmul, "allow_tf32"),
    "cudnn.allow_tf32": attribute(torch.backends.cudnn, "allow_tf32"),
    "cudnn.benchmark": attribute(torch.backends.cudnn, "benchmark"),
    "cudnn.deterministic": attribute(torch.backends.cudnn, "deterministic"),
    "cudnn.enabled": attribute(torch.backends.cudnn, "enabled"),
    "mkldnn.enabled": (
        torch._C._get_mkldnn_enabled,
        lambda was: torch._C._set_mkldnn_enabled(was),
    ),
    "nnpack.enabled": (
        torch._C._get_nnpack_enabled,
        lambda was: torch._C._set_nnpack_enabled(was),
    ),
    "sums of float16 products": attribute(
        torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction"
    ),
    "sums of bfloat16 products": attribute(
        torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction"
    ),
    "float16 accumulation": attribute(torch.backends.cuda.matmul, "allow_fp16_accumulation"),
    "kernels of attention": (_attention, _set_attention),
    "engine of quantized operations": attribute(torch.backends.quantized, "engine"),
    "types of autocast": (_autocast_types, _set_autocast_types),
    "numbers below the smallest normal one": (
        _denormals,
        lambda was: torch.set_flush_denormal(not was),
    ),
    "inference mode": (torch.is_inference_mode_enabled, _set_inference),
    "hooks of all modules": (_hooks, _set_hooks),
}
