"""The kernels at run time: compiled once per process, tested before use, called on tensors."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tfq_bench_cuda.kernels import selftest
from tfq_bench_cuda.kernels.compiled import FLAGS, configuration, instruction, load, program
from tfq_bench_cuda.kernels.operands import NOTHING, Additions, Factors, asked
from tfq_bench_cuda.kernels.specs import ConvSpec, LinearSpec, ProductSpec, QuantizeSpec

__all__ = ["Kernels"]

_Spec = ProductSpec | QuantizeSpec


class Kernels:
    """Compiled kernels of one architecture, by spec; see `ReferenceKernels` for what they compute.

    A kernel that is not there yet is compiled and held against exact integers when it is first
    asked for. TileLang keeps what it compiled on disk (`TILELANG_CACHE_DIR`), so a second process
    starts quickly.

    Args:
        arch: a value of `tiles.ARCHITECTURES`.

    Attributes:
        seconds: spent so far, by phase.
    """

    def __init__(self, arch: str, device: str) -> None:
        self.arch = arch
        self.device = torch.device(device)
        self.seconds = {"compile": 0.0, "self_test": 0.0}
        self._compiled: dict[_Spec, Any] = {}
        self._noted: list[_Spec] | None = None
        self._instructions: dict[_Spec, str] = {}

    @property
    def gathers(self) -> bool:
        """Whether all convolutions gather their pixels: before sm_90 there is no copy engine."""
        return self.arch != "sm_90a"

    def prepare(self, specs: Iterable[_Spec]) -> None:
        """Compiles those that are not there yet, on all cores, and tests each of them.

        Raises:
            LoweringError: a kernel's sums are not those of integer arithmetic.
        """
        missing = [spec for spec in dict.fromkeys(specs) if spec not in self._compiled]
        if not missing:
            return
        begin = time.perf_counter()
        try:
            with ThreadPoolExecutor(1) as aside:
                loaded = aside.submit(selftest.load_libraries, self.device)
                for error in self.compile(missing).values():
                    raise error
                compiled_at = time.perf_counter()
                loaded.result()
            for spec in missing:
                selftest.check(self, spec, self.device)
        except BaseException:
            for spec in missing:  # none is used that was not tested
                self._compiled.pop(spec, None)
            raise
        self.seconds["compile"] += compiled_at - begin
        self.seconds["self_test"] += time.perf_counter() - compiled_at

    def compile(self, specs: Iterable[_Spec]) -> dict[_Spec, Exception]:
        """Compiles those that are not there yet, on all cores. Only a search leaves out the test.

        Returns:
            What went wrong, by spec.
        """
        missing = [spec for spec in dict.fromkeys(specs) if spec not in self._compiled]
        if not missing:
            return {}
        tilelang = load()
        failed: dict[_Spec, Exception] = {}
        programs: dict[_Spec, Any] = {}
        for spec in missing:  # the builder is not safe in threads
            try:
                programs[spec] = program(spec)
            except Exception as error:
                failed[spec] = error

        def compiled(spec: _Spec) -> Any:
            return tilelang.compile(
                programs[spec],
                target={"kind": "cuda", "arch": self.arch},
                execution_backend="tvm_ffi",
                pass_configs=configuration(spec),
                compile_flags=list(FLAGS),
            )

        workers = min(len(missing), len(os.sched_getaffinity(0)))
        with ThreadPoolExecutor(workers) as pool:
            futures = {spec: pool.submit(compiled, spec) for spec in programs}
            for spec, future in futures.items():
                try:
                    self._compiled[spec] = future.result()
                except Exception as error:
                    failed[spec] = error
                    continue
                self._instructions[spec] = instruction(self._compiled[spec].get_kernel_source())
        return failed

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Calls inside compile nothing and may give any numbers; then what they lacked is compiled.

        So all cores compile at once what a network asks for at its first call.
        """
        self._noted = noted = []
        try:
            yield
        finally:
            self._noted = None
        self.prepare(noted)

    def name(self, spec: ProductSpec) -> str:
        """For instance `tilelang s8 conv2d 128x160x64 wgmma`, the instruction as compiled."""
        self.prepare([spec])
        name = f"tilelang s8 {spec.kind} {spec.tile} {self._instructions[spec]}"
        return f"{name} {spec.ending}".rstrip()

    def quantize(
        self, spec: QuantizeSpec, x: Tensor, step: Tensor, inverse: Tensor, zero_point: Tensor
    ) -> Tensor:
        """int8 codes with channels last, see `ReferenceKernels.quantize`."""
        if x.data_ptr() % 16:
            x = x.clone()  # four numbers are read at once
        shape = (x.shape[0], x.shape[2]) if spec.planes else (x.shape[0],)
        code = torch.empty((*shape, spec.padded), dtype=torch.int8, device=x.device)
        self._call(spec, x, step, inverse, zero_point, code)
        return code

    def linear(
        self, spec: LinearSpec, code: Tensor, factors: Factors, additions: Additions = NOTHING
    ) -> Tensor:
        """`[M, n]`, see `ReferenceKernels.linear`."""
        y = _result(spec, code.shape[0], code.device)
        self._call(spec, code, *_tensors(spec, factors, additions), y)
        return y

    def conv2d(
        self, spec: ConvSpec, code: Tensor, factors: Factors, additions: Additions = NOTHING
    ) -> Tensor:
        """`[B * out_h * out_w, n]`, see `ReferenceKernels.conv2d`."""
        assert factors.positions is not None
        y = _result(spec, code.shape[0] * len(factors.positions), code.device)
        self._call(spec, code, *_tensors(spec, factors, additions), y)
        return y

    def _call(self, spec: _Spec, *tensors: Tensor) -> None:
        if spec not in self._compiled:
            if self._noted is not None:
                self._noted.append(spec)
                return
            self.prepare([spec])
        self._compiled[spec](*tensors)


def _result(spec: ProductSpec, rows: int, device: torch.device) -> Tensor:
    return torch.empty((rows, spec.n), dtype=getattr(torch, spec.ending.out), device=device)


def _tensors(spec: ProductSpec, factors: Factors, additions: Additions) -> list[Tensor]:
    """The arguments of a program, between codes and result."""
    places = [] if factors.positions is None else [factors.positions]
    return [
        factors.weight,
        factors.sums,
        *places,
        factors.step,
        factors.scale,
        factors.zero_point,
        factors.weight_scale,
        factors.bias,
        *(getattr(additions, name) for name in asked(spec.ending)),
    ]
