"""What every backend must keep to, on the tiny model of the host."""

from __future__ import annotations

from tfq_bench.api import Scheme
from tfq_bench.testing.contracts import BackendContract
from tfq_bench_openvino.backend import OpenVinoBackend


class TestOpenVino(BackendContract):
    schemes = (Scheme(wbits=8, abits=8), Scheme(wbits=4, abits=8), Scheme(wbits=6, abits=6))

    def make(self):
        return OpenVinoBackend()
