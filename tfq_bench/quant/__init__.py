"""The toolkit for quantizer and backend authors. Importing it imports torch.

A quantizer resolves its policy, observes inputs, finds ranges, makes `QuantizedLayer`s and returns
a `QuantizedState`; `rtn` is the shortest example. A backend swaps layers of a copied network and
checks itself against `simulate` and `integer_sums`.
"""

from tfq_bench.quant.affine import (
    affine_from_range,
    dequantize,
    fake_quantize,
    per_channel,
    quantize,
)
from tfq_bench.quant.bits import BitReport, bit_report, pack, unpack
from tfq_bench.quant.cached import CachedProjection, TemporalCache, unused_layers
from tfq_bench.quant.layers import WeightedLayer, apply_layer, find_layer, replace_layer
from tfq_bench.quant.lowering import check_state, finish_lowering
from tfq_bench.quant.observe import InputRanges, observe_inputs
from tfq_bench.quant.parity import (
    Parity,
    integer_sums,
    layer_parities,
    layer_parity,
    network_parity,
)
from tfq_bench.quant.policy import UNIFORM, Exempt, LayerBits, Policy, find_policy, resolve
from tfq_bench.quant.ranges import EmaRange, minmax, mse_range, percentile
from tfq_bench.quant.rtn import RoundToNearest, round_weight
from tfq_bench.quant.simulate import SimulateBackend, SimulatedLayer, simulate
from tfq_bench.quant.state import ActivationTable, LayerPart, QuantizedLayer, QuantizedState
from tfq_bench.quant.temporal import TemporalErrors, temporal_errors, temporal_features
from tfq_bench.quant.topology import trace_topology

__all__ = [
    "UNIFORM",
    "ActivationTable",
    "BitReport",
    "CachedProjection",
    "EmaRange",
    "Exempt",
    "InputRanges",
    "LayerBits",
    "LayerPart",
    "Parity",
    "Policy",
    "QuantizedLayer",
    "QuantizedState",
    "RoundToNearest",
    "SimulateBackend",
    "SimulatedLayer",
    "TemporalCache",
    "TemporalErrors",
    "WeightedLayer",
    "affine_from_range",
    "apply_layer",
    "bit_report",
    "check_state",
    "dequantize",
    "fake_quantize",
    "find_layer",
    "find_policy",
    "finish_lowering",
    "integer_sums",
    "layer_parities",
    "layer_parity",
    "minmax",
    "mse_range",
    "network_parity",
    "observe_inputs",
    "pack",
    "per_channel",
    "percentile",
    "quantize",
    "replace_layer",
    "resolve",
    "round_weight",
    "simulate",
    "temporal_errors",
    "temporal_features",
    "trace_topology",
    "unpack",
    "unused_layers",
]
