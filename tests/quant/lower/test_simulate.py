"""The simulated network computes with the state's integers and leaves the original alone."""

import copy
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tfq_bench.errors import LoweringError, QuantizationError
from tfq_bench.quant.bit_report import bit_report
from tfq_bench.quant.lower.lowering import copy_network
from tfq_bench.quant.lower.simulate import SIMULATED_KERNEL, SimulatedLayer, simulate
from tfq_bench.quant.rtn import round_weight
from tfq_bench.quant.state.qparams import ActivationQParams
from tfq_bench.quant.state.quantized_state import LayerPart, QuantizedLayer
from tfq_bench.testing.integers import integer_sums
from tfq_bench.types.networks import StepCursor


def table(*pairs, bits=8):
    """An activation table of (scale, zero point) pairs."""
    return ActivationQParams(
        bits=bits,
        scale=torch.tensor([scale for scale, _ in pairs]),
        zero_point=torch.tensor([zero for _, zero in pairs], dtype=torch.int32),
    )


def quantized(module, *activations, cuts=()):
    """`module` with 8-bit weights, cut at channels `cuts`, one scale per channel for all parts."""
    codes, scale, zero_point = round_weight(module.weight, 8)
    bounds = [0, *cuts, module.weight.shape[1] * getattr(module, "groups", 1)]
    parts = tuple(
        LayerPart(
            start=start,
            stop=stop,
            weight=codes[:, start:stop],
            scale=scale,
            zero_point=zero_point,
            activation=activation,
        )
        for (start, stop), activation in zip(pairwise(bounds), activations, strict=True)
    )
    kind = "conv2d" if isinstance(module, nn.Conv2d) else "linear"
    return QuantizedLayer(name="m", kind=kind, wbits=8, parts=parts, bias=module.bias.detach())


@pytest.fixture
def conv(generator):
    """A convolution with a stride and padding."""
    conv = nn.Conv2d(6, 4, 3, stride=2, padding=1)
    nn.init.normal_(conv.weight, generator=generator)
    nn.init.normal_(conv.bias, generator=generator)
    return conv.requires_grad_(False)


def test_eight_bits_are_close_to_full_precision(loaded, round_to_nearest, inputs):
    """And four are much further away, so the bits are really used."""
    errors = {}
    for bits in (8, 4):
        simulated = simulate(loaded, round_to_nearest(bits, bits))
        expected = loaded.model.predict(loaded.network, *inputs, {})
        found = loaded.model.predict(simulated.network, *inputs, {})
        errors[bits] = float((found - expected).norm() / expected.norm())
    assert 0 < errors[8] < 0.05
    assert errors[4] > 4 * errors[8]


def test_original_network_is_not_modified(loaded, round_to_nearest, inputs):
    """Same modules, same weights, same output, no hooks left."""
    before = {name: value.clone() for name, value in loaded.network.state_dict().items()}
    modules = dict(loaded.network.named_modules())
    expected = loaded.model.predict(loaded.network, *inputs, {})
    lowered = simulate(loaded, round_to_nearest(4, 8))
    loaded.model.predict(lowered.network, *inputs, {})
    assert modules == dict(loaded.network.named_modules())
    assert all(torch.equal(before[n], v) for n, v in loaded.network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in modules.values())
    assert torch.equal(expected, loaded.model.predict(loaded.network, *inputs, {}))


def test_every_layer_is_listed_and_counted(loaded, round_to_nearest, inputs):
    """One kernel entry a layer in execution order, one execution each per call."""
    lowered = simulate(loaded, round_to_nearest(4, 8))
    loaded.model.predict(lowered.network, *inputs, {})
    assert [layer.name for layer in loaded.topology.layers] == [u.layer for u in lowered.kernels]
    assert {SIMULATED_KERNEL: len(lowered.kernels)} == lowered.executed
    assert {(4, 8), (8, 8)} == {(use.wbits, use.abits) for use in lowered.kernels}
    assert lowered.execution == "simulated"


def test_no_state_is_full_precision(loaded, inputs):
    """A copy that computes the same."""
    lowered = simulate(loaded, None)
    expected = loaded.model.predict(loaded.network, *inputs, {})
    assert torch.equal(expected, loaded.model.predict(lowered.network, *inputs, {}))
    assert (lowered.execution, lowered.kernels) == ("full-precision", ())


def test_float_activations_are_not_rounded(conv, generator, dequantized):
    """With 32 activation bits only the weight is quantized."""
    layer = quantized(conv, None)
    x = torch.randn(2, 6, 7, 7, generator=generator)
    expected = nn.functional.conv2d(x, dequantized(layer), conv.bias, 2, 1)
    assert layer.abits == 32
    torch.testing.assert_close(SimulatedLayer(layer, conv, StepCursor("cpu"))(x), expected)


def test_output_is_the_scaled_integer_sum(conv, generator):
    """Padding with zeros adds nothing although the zero point is not zero."""
    activation = table((0.03, 100))
    layer = quantized(conv, activation)
    x = torch.randn(2, 6, 7, 7, generator=generator)
    (sums,) = integer_sums(layer, x, stride=2, padding=1)
    scale = layer.parts[0].scale.double() * activation.scale.double()
    expected = sums * scale[:, None, None] + conv.bias.double()[:, None, None]
    found = SimulatedLayer(layer, conv, StepCursor("cpu"))(x)
    assert torch.int64 == sums.dtype
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_table_is_read_at_the_cursor(conv, generator):
    """Moving the cursor of a finished layer changes which parameters it uses."""
    pairs = [(0.05, 128), (0.5, 10), (0.01, 200)]
    step = StepCursor("cpu")
    layer = SimulatedLayer(quantized(conv, table(*pairs)), conv, step)
    x = torch.randn(1, 6, 5, 5, generator=generator)
    outputs = []
    for index, pair in enumerate(pairs):
        step.set(index)
        static = SimulatedLayer(quantized(conv, table(pair)), conv, StepCursor("cpu"))
        outputs.append(layer(x))
        assert torch.equal(static(x), outputs[-1])
    assert not torch.equal(outputs[0], outputs[1])


def test_step_is_read_on_the_device_only(conv):
    """No value travels to the host, which a captured CUDA graph would not see change."""
    layer = SimulatedLayer(
        quantized(conv, table((0.05, 128), (0.5, 10))), conv, StepCursor("cpu"), {}
    )
    # Under fake tensors, which have no values, reading one on the host is an error.
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert layer(torch.zeros(1, 6, 5, 5)).shape == (1, 4, 3, 3)


def test_split_with_equal_parameters_is_no_split(conv, generator):
    """Two parts that share scale and zero point give the unsplit layer's output."""
    x = torch.randn(1, 6, 5, 5, generator=generator)
    pair = table((0.05, 120))
    whole = SimulatedLayer(quantized(conv, pair), conv, StepCursor("cpu"))
    split = SimulatedLayer(quantized(conv, pair, pair, cuts=(2,)), conv, StepCursor("cpu"))
    torch.testing.assert_close(split(x), whole(x))


def test_split_parts_use_their_own_parameters(generator):
    """A linear layer equals the sum over the parts' products, and its bias is added once."""
    linear = nn.Linear(6, 3)
    layer = quantized(linear, table((0.05, 120)), table((0.2, 30), bits=6), cuts=(2,))
    x = torch.randn(4, 5, 6, generator=generator)
    expected = linear.bias.detach().double()
    for part, sums in zip(layer.parts, integer_sums(layer, x), strict=True):
        expected = expected + sums * part.scale.double() * part.activation.scale.double()
    found = SimulatedLayer(layer, linear, StepCursor("cpu"))(x)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_depthwise_convolution_keeps_its_groups(generator):
    """Grouped weights have fewer input channels than the layer."""
    conv = nn.Conv2d(6, 6, 3, groups=6, padding=1).requires_grad_(False)
    layer = quantized(conv, None)
    x = torch.randn(1, 6, 5, 5, generator=generator)
    found = SimulatedLayer(layer, conv, StepCursor("cpu"))(x)
    torch.testing.assert_close(found, conv(x), atol=0.05, rtol=0.05)


def test_state_of_another_model_or_sampler_is_refused(loaded, round_to_nearest):
    """Tables of other timesteps would be read at the wrong place."""
    state = round_to_nearest(8, 8)
    with pytest.raises(LoweringError, match="made from model other"):
        simulate(loaded, replace(state, model="other"))
    with pytest.raises(LoweringError, match="differ from the sampler's 6"):
        simulate(loaded, replace(state, timesteps=(1, 2)))


def test_exempt_layer_in_half_is_rounded_and_counted_at_16_bits(loaded, round_to_nearest):
    """Its weight and bias are float16 values, computed with in float32; the original stays."""
    state = round_to_nearest(8, 8)
    layers = {name: layer for name, layer in state.layers.items() if name != "first.time"}
    exempt = {"first.time": "small"}
    plain = replace(state, layers=layers, exempt=exempt)
    half = replace(plain, half=("first.time",))
    original = loaded.network.get_submodule("first.time")
    found = simulate(loaded, half).network.get_submodule("first.time")
    assert torch.equal(original.weight.half().float(), found.weight)
    assert torch.equal(original.bias.half().float(), found.bias)
    assert not torch.equal(original.weight, found.weight)
    reports = [bit_report(loaded.network, loaded.topology, one) for one in (plain, half)]
    parameters = original.weight.numel() + original.bias.numel()
    assert 2 * parameters == reports[0].fp_bytes - reports[1].fp_bytes
    weights = sum(math.prod(layer.weight_shape) for layer in loaded.topology.layers)
    share = original.weight.numel() / weights
    assert pytest.approx(8 + 8 * share) == reports[1].mean_weight_bits


def test_half_of_a_quantized_layer_is_refused(round_to_nearest):
    """Float16 is what an exemption may ask for, not a quantized layer."""
    with pytest.raises(QuantizationError, match="must be exempt"):
        replace(round_to_nearest(8, 8), half=("first.time",))


def test_replaced_weights_are_never_copied(loaded, round_to_nearest):
    """A copy of a network shares what is going to be replaced, and nothing else."""
    copied = copy_network(loaded.network, round_to_nearest(8, 8).layers)
    for name, parameter in loaded.network.named_parameters():
        same = copied.get_parameter(name) is parameter
        assert same == ("norm" not in name)


def test_network_of_16_bits_is_simulated_in_float32(loaded, round_to_nearest, inputs):
    """Sums of integers do not fit bfloat16; the output has the network's type again."""
    half = replace(loaded, network=copy.deepcopy(loaded.network).to(torch.bfloat16))
    state = round_to_nearest(8, 8)
    whole, lowered = simulate(loaded, state), simulate(half, state)
    expected = loaded.model.predict(whole.network, *inputs, {})
    found = loaded.model.predict(lowered.network, *inputs, {})
    assert torch.float32 == found.dtype
    assert float((found.float() - expected).norm() / expected.norm()) < 0.05
