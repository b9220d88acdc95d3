"""What plugins must keep to, as test classes to subclass.

Example::

    class TestMyQuantizer(QuantizerContract):
        schemes = (Scheme(wbits=4, abits=8),)

        def make(self, scheme):
            return MyQuantizer(scheme=scheme)

Every test runs on the CPU with the tiny model unless the subclass says otherwise.

Here: one contract a module, and the predictions by which networks are compared.
Not here: the tiny model, inputs and states that they use (`testing`).
Imports: errors, keys, pipeline, protocols, quant.lower, quant.state, seeds, testing, types.
"""

from tfq_bench.testing.contracts.backend import BackendContract
from tfq_bench.testing.contracts.contestant import ContestantContract
from tfq_bench.testing.contracts.metric import MetricContract
from tfq_bench.testing.contracts.model import ModelContract
from tfq_bench.testing.contracts.quantizer import QuantizerContract

__all__ = [
    "BackendContract",
    "ContestantContract",
    "MetricContract",
    "ModelContract",
    "QuantizerContract",
]
