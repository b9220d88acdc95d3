"""The toolkit for quantizer and backend authors. Importing it imports torch.

A quantizer resolves its policy, observes inputs, finds ranges, makes `QuantizedLayer`s and returns
a `QuantizedState`; `rtn` is the shortest example. A backend swaps layers of a copied network and
checks itself with `watched_layers`, as every run does.

Here: the toolkit of quantizer and backend authors, whose door is this package; at its root what
    more than one room needs: policies, topology, layers, guidance, sampling, `rtn` as the shortest
    quantizer.
Not here: stages (`pipeline`), methods of papers (plugins).
Imports: errors, foreign, keys, seeds, store, types.
"""

from tfq_bench.quant.bit_report import BitReport, bit_report
from tfq_bench.quant.calibrate.observers import InputRanges, RangeMethod, observe_inputs
from tfq_bench.quant.calibrate.ranges import EmaRange, minmax, mse_range, percentile
from tfq_bench.quant.calibrate.temporal import (
    TemporalErrors,
    float16_caches,
    temporal_errors,
    temporal_features,
)
from tfq_bench.quant.guidance import guided_prediction
from tfq_bench.quant.jitter import ScaleJitter
from tfq_bench.quant.layers import (
    WeightedLayer,
    apply_layer,
    find_layer,
    input_parts,
    replace_layer,
)
from tfq_bench.quant.learn.activation_qparams import by_step, set_activation_qparams, take
from tfq_bench.quant.learn.adaround import BETA_START, SoftRounding, anneal
from tfq_bench.quant.learn.bias_correction import correct_output_bias
from tfq_bench.quant.learn.block import Reconstruction
from tfq_bench.quant.learn.fake_quant_layer import FakeQuantLayer
from tfq_bench.quant.learn.fake_quant_network import FakeQuantNetwork
from tfq_bench.quant.learn.optimize import optimize, optimizer_for
from tfq_bench.quant.learn.reconstruct import BlockReport, reconstruct
from tfq_bench.quant.lower.attention import calibrate_attention, is_attention, quantize_attention
from tfq_bench.quant.lower.exact_call import LayerCheck
from tfq_bench.quant.lower.lowering import (
    check_state,
    copy_network,
    finish_lowering,
    int8_refusal,
    int8_weight,
)
from tfq_bench.quant.lower.parity import Parity, network_parity
from tfq_bench.quant.lower.simulate import (
    SIMULATED_KERNEL,
    SimulateBackend,
    SimulatedLayer,
    simulate,
)
from tfq_bench.quant.lower.watched import LayerWatch, watched_layers
from tfq_bench.quant.policy import (
    POLICIES,
    UNIFORM,
    AttentionBits,
    Exempt,
    LayerBits,
    Policy,
    attention_bits,
    exemptions,
    find_policy,
    resolve,
)
from tfq_bench.quant.rtn import RoundToNearest, WeightMethod, activation_qparams, round_weight
from tfq_bench.quant.sampler_noise import noise_share
from tfq_bench.quant.state.affine import (
    affine_from_range,
    dequantize,
    fake_quantize,
    per_channel,
    quantize,
)
from tfq_bench.quant.state.packing import pack, unpack
from tfq_bench.quant.state.qparams import ActivationQParams, AttentionQParams
from tfq_bench.quant.state.quantized_state import LayerPart, QuantizedLayer, QuantizedState
from tfq_bench.quant.state.sampler_correction import SamplerCorrection
from tfq_bench.quant.state.storage import load_state, save_state
from tfq_bench.quant.state.temporal_cache import CachedProjection, TemporalCache, unused_layers
from tfq_bench.quant.topology import trace_topology

__all__ = [
    "BETA_START",
    "POLICIES",
    "SIMULATED_KERNEL",
    "UNIFORM",
    "ActivationQParams",
    "AttentionBits",
    "AttentionQParams",
    "BitReport",
    "BlockReport",
    "CachedProjection",
    "EmaRange",
    "Exempt",
    "FakeQuantLayer",
    "FakeQuantNetwork",
    "InputRanges",
    "LayerBits",
    "LayerCheck",
    "LayerPart",
    "LayerWatch",
    "Parity",
    "Policy",
    "QuantizedLayer",
    "QuantizedState",
    "RangeMethod",
    "Reconstruction",
    "RoundToNearest",
    "SamplerCorrection",
    "ScaleJitter",
    "SimulateBackend",
    "SimulatedLayer",
    "SoftRounding",
    "TemporalCache",
    "TemporalErrors",
    "WeightMethod",
    "WeightedLayer",
    "activation_qparams",
    "affine_from_range",
    "anneal",
    "apply_layer",
    "attention_bits",
    "bit_report",
    "by_step",
    "calibrate_attention",
    "check_state",
    "copy_network",
    "correct_output_bias",
    "dequantize",
    "exemptions",
    "fake_quantize",
    "find_layer",
    "find_policy",
    "finish_lowering",
    "float16_caches",
    "guided_prediction",
    "input_parts",
    "int8_refusal",
    "int8_weight",
    "is_attention",
    "load_state",
    "minmax",
    "mse_range",
    "network_parity",
    "noise_share",
    "observe_inputs",
    "optimize",
    "optimizer_for",
    "pack",
    "per_channel",
    "percentile",
    "quantize",
    "quantize_attention",
    "reconstruct",
    "replace_layer",
    "resolve",
    "round_weight",
    "save_state",
    "set_activation_qparams",
    "simulate",
    "take",
    "temporal_errors",
    "temporal_features",
    "trace_topology",
    "unpack",
    "unused_layers",
    "watched_layers",
]
