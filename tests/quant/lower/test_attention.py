"""Attention's products see rounded values, in every backend, and the original stays as it was."""

import logging
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tfq_bench.errors import LoweringError, QuantizationError
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.quant.bit_report import bit_report
from tfq_bench.quant.lower.attention import (
    ATTENTION_KERNEL,
    AttentionProcessor,
    calibrate_attention,
    is_attention,
)
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.quant.lower.watched import watched_layers
from tfq_bench.quant.policy import UNIFORM, AttentionBits, Policy, attention_bits
from tfq_bench.quant.rtn import RoundToNearest
from tfq_bench.quant.state.affine import fake_quantize
from tfq_bench.quant.state.qparams import ActivationQParams, AttentionQParams
from tfq_bench.quant.state.storage import load_state, save_state
from tfq_bench.quant.topology import trace_topology
from tfq_bench.types import Scheme

WIDTH, HEADS = 16, 4
NAME = "attention"
ATTENTIVE = Policy(name="attentive", attention=AttentionBits(operands=8, softmax=8))


class AttnProcessor:
    """Plain attention over the pixels of an image, written out."""

    def __call__(self, attn, hidden_states, **_):
        """The attention's output `[B, C, H, W]`."""
        x = attn.group_norm(hidden_states.flatten(2)).transpose(1, 2)
        heads = [
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in (attn.to_q(x), attn.to_k(x), attn.to_v(x))
        ]
        weights = (heads[0] @ heads[1].transpose(-1, -2) * attn.scale).softmax(-1)
        mixed = (weights @ heads[2]).transpose(1, 2).flatten(2)
        mixed = attn.to_out[0](mixed).transpose(1, 2).reshape(hidden_states.shape)
        return (mixed + hidden_states) / attn.rescale_output_factor


class Attention(nn.Module):
    """Built like the attention of diffusers."""

    def __init__(self):
        super().__init__()
        self.heads, self.scale = HEADS, (WIDTH // HEADS) ** -0.5
        self.group_norm = nn.GroupNorm(4, WIDTH)
        self.to_q, self.to_k, self.to_v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Identity()])
        self.residual_connection, self.rescale_output_factor = True, 1.5
        self.processor = AttnProcessor()

    def set_processor(self, processor):
        """Exchanges what computes the output."""
        self.processor = processor

    def forward(self, x):
        """The output of the processor."""
        return self.processor(self, x)


@pytest.fixture
def attending(loaded):
    """The tiny model with such an attention, its topology traced."""
    network = loaded.network
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network.attention = Attention().requires_grad_(False)
    roles = {layer.name: layer.role for layer in loaded.topology.layers}
    topology = trace_topology(
        network,
        lambda net: net(torch.zeros(1, 3, 8, 8), torch.zeros(1)),
        lambda name, _: roles.get(name, "attention"),
        lambda name: name.split(".")[0],
    )
    return replace(loaded, topology=topology)


@pytest.fixture
def quantize(attending):
    """Makes a state of `rtn` whose attention is quantized as well: `quantize(policy)`."""

    def make(policy=ATTENTIVE, abits=8):
        scheme = Scheme(wbits=8, abits=abits)
        quantizer = RoundToNearest(scheme=scheme)
        needs = quantizer.calibration_needs(attending, images=4)
        data = capture(attending, needs, seed=0, batch=4, progress=lambda *_: None)
        generator = torch.Generator().manual_seed(0)
        state = quantizer.quantize(attending, data, generator=generator, progress=lambda *_: None)
        bits = attention_bits(policy, scheme)
        attention = calibrate_attention(attending, data, bits, generator=generator)
        return replace(state, attention=attention)

    return make


def test_only_modules_with_standard_processors_are_attention(attending):
    """The trace finds it; an unknown processor may compute something else."""
    assert (NAME,) == attending.topology.attention
    attending.network.attention.set_processor(lambda *_: None)
    assert not is_attention(attending.network.attention)
    assert not is_attention(nn.Linear(2, 2))


def test_processor_that_rounds_nothing_computes_the_same(attending, generator):
    """And shows queries, keys, values and attention weights with their heads apart."""
    module, seen = attending.network.attention, {}
    x = torch.randn(2, WIDTH, 8, 8, generator=generator)
    expected = module(x)

    def point(name, value):
        seen[name] = tuple(value.shape)
        return value

    module.set_processor(AttentionProcessor(point))
    torch.testing.assert_close(module(x), expected)
    part = (2, HEADS, 64, WIDTH // HEADS)
    assert {"q": part, "k": part, "v": part, "softmax": (2, HEADS, 64, 64)} == seen


def test_products_see_values_rounded_at_the_current_step(attending, quantize, generator):
    """Written out with fake quantization; the table of the queries has one entry per step."""
    state = quantize()
    tables = state.attention[NAME]
    scale = torch.arange(1, 7) * tables.q.scale
    q = ActivationQParams(bits=8, scale=scale, zero_point=tables.q.zero_point.repeat(6))
    tables = replace(tables, q=q)
    lowered = simulate(attending, replace(state, layers={}, attention={NAME: tables}))
    module = lowered.network.attention
    x = torch.randn(2, WIDTH, 8, 8, generator=generator)
    for step in (0, 4):
        lowered.step.set(step)
        columns = {name: (t.scale, t.zero_point) for name, t in tables.by_point().items()}
        columns["q"] = (q.scale[step], q.zero_point[step])
        attn = attending.network.attention
        attn.set_processor(
            AttentionProcessor(
                lambda name, value, columns=columns: fake_quantize(value, *columns[name], 8)
            )
        )
        assert torch.equal(attn(x), module(x))


def test_tables_hold_what_was_seen_and_nothing_is_left_behind(attending, quantize):
    """The softmax lies in [0, 1] with zero point 0; the processor is the model's own again."""
    before = attending.network.attention.processor
    tables = quantize().attention[NAME]
    assert before is attending.network.attention.processor
    assert 0 < float(tables.softmax.scale) <= 1.0001 / 255
    assert [0] == tables.softmax.zero_point.tolist()
    assert {8} == {table.bits for table in tables.by_point().values()}
    assert quantize(UNIFORM).attention == {}
    assert quantize(abits=32).attention == {}


def test_quantized_attention_is_listed_as_fallback_and_counted(attending, quantize, inputs):
    """It runs in float, so it is no low-bit kernel, and its work is not the topology's."""
    state = quantize()
    lowered = simulate(attending, state)
    with watched_layers(attending, state, lowered) as watch:
        attending.model.predict(lowered.network, *inputs, {})
    (use,) = [use for use in lowered.kernels if use.layer == NAME]
    assert "run in float" in use.fallback
    assert (8, 8, 0) == (use.wbits, use.abits, use.macs)
    assert lowered.executed[ATTENTION_KERNEL] == 1
    assert set(state.layers) == set(watch.checks)  # attention's own layers, and not it


def test_tables_survive_the_disk_and_are_counted(attending, quantize, tmp_path, inputs):
    """Same predictions bit for bit; five bytes a table."""
    before = quantize()
    save_state(before, tmp_path)
    after = load_state(tmp_path)
    expected, found = (
        attending.model.predict(simulate(attending, state).network, *inputs, {})
        for state in (before, after)
    )
    assert torch.equal(expected, found)
    stored = load_file(tmp_path / "tensors-0001.safetensors")
    assert before.packed_bytes == sum(value.nbytes for value in stored.values())
    report = bit_report(attending.network, attending.topology, before)
    assert report.bytes_by_role["attention-tables"] == 4 * 5
    assert before.packed_bytes == report.packed_bytes


def test_impossible_tables_are_refused(attending, quantize):
    """A softmax with a zero point, another name, a table for other steps, no such module."""
    state = quantize()
    tables = state.attention[NAME]
    ones = torch.ones(2, dtype=torch.int32)
    with pytest.raises(QuantizationError, match="zero points of 0"):
        replace(tables, softmax=replace(tables.softmax, zero_point=ones[:1]))
    with pytest.raises(QuantizationError, match="own name"):
        replace(state, attention={"other": tables})
    two = replace(tables, v=ActivationQParams(bits=8, scale=torch.ones(2), zero_point=ones))
    with pytest.raises(QuantizationError, match=r"attention.*1 or 6 entries"):
        replace(state, attention={NAME: two})
    stranger = AttentionQParams(name="first", **tables.by_point())
    with pytest.raises(LoweringError, match="'first', the network has _Residual"):
        simulate(attending, replace(state, attention={"first": stranger}))


def test_model_without_attention_is_said_to_stay_float(loaded, caplog, generator):
    """The policy cannot be followed there; the log says so."""
    with caplog.at_level(logging.WARNING, "tfq_bench.quant"):
        found = calibrate_attention(loaded, None, AttentionBits(), generator=generator)
    assert found == {}
    assert "declares none" in caplog.text
