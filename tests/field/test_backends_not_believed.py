"""Backends that do not compute what they say, each in one way: the cell fails before it samples.

The honest backend is written from the definition alone: patches, integer products in int64, one
epilogue. The others are it with one fault.
"""

import re

import pytest

from tfq_bench.cli import main
from tfq_bench.store.run import RunFolder

BACKEND = """
import dataclasses

import torch
from torch import nn
from torch.nn import functional as F

from tfq_bench import api
from tfq_bench.quant import simulate
from tfq_bench.quant.layers import find_layer, replace_layer
from tfq_bench.quant.lower.lowering import copy_network, finish_lowering

KERNEL = "integers"
FAULTS = (
    "none", "division", "float16 epilogue", "plain", "plain without modules", "zeros", "noise",
    "nan", "simulated", "float weights", "float activations", "no bias", "no zero point",
    "saturated", "one scale", "swapped", "one channel", "one image", "rounded down",
    "unclamped", "wraps", "float kernel", "short list", "decoys", "half", "None", "cache left out",
    "batch", "odd batch", "step", "last step", "kept", "rows", "outside", "full batch outside",
)


class Layer(nn.Module):
    def __init__(self, layer, original, step, executed, fault):
        super().__init__()
        self.layer, self.step, self.executed, self.fault = layer, step, executed, fault
        self.held = [original]  # in a list: no parameter of this module
        self.kept = {}

    def forward(self, x):
        self.executed[KERNEL] = self.executed.get(KERNEL, 0) + 1
        original, fault = self.held[0], self.fault
        if fault == "plain":
            return original(x)
        y = sum(self.part(x, part) for part in self.layer.parts)
        if self.layer.bias is not None and fault != "no bias":
            y = y + self.layer.bias.view(-1, 1, 1) if y.dim() == 4 else y + self.layer.bias
        if fault == "zeros":
            y = torch.zeros_like(y)
        if fault == "noise":
            source = torch.Generator().manual_seed(0)
            y = torch.randn(y.shape, generator=source) * y.std() + y.mean()
        if fault == "nan":
            y = torch.full_like(y, torch.nan)
        if fault == "one channel" and self.layer.name == "second.conv2":
            y = y.clone()
            y[:, 7] += float(y.std()) / 3
        if fault == "one image":
            y = torch.cat([y[:1], y[:1].expand(len(y) - 1, *y.shape[1:])])
        if fault == "half":
            y = y.bfloat16().float()
        step = int(self.step.index)
        if (
            (fault == "batch" and len(x) > 2)
            or (fault == "odd batch" and len(x) % 2)
            or (fault == "step" and step == 1)
            or (fault == "last step" and step == 6)
        ):
            y = y * 1.5
        if fault == "rows" and len(x) > 2:
            y = y.roll(2, dims=0)
        if fault == "kept":  # as a graph whose inputs are copied for its first call only
            y = self.kept.setdefault(y.shape, y)
        return y

    def part(self, x, part):
        fault = self.fault
        table = part.activation
        k = int(self.step.index) if len(table.scale) > 1 else 0
        scale, zero = table.scale[k], int(table.zero_point[k])
        conv = self.layer.kind == "conv2d"
        x = x.narrow(1 if conv else -1, part.start, part.stop - part.start)
        scaled = x / scale if fault == "division" else x * (1 / scale)
        scaled = scaled.floor() if fault == "rounded down" else scaled.round()
        code = scaled + zero
        if fault == "wraps":
            code = code % 2**table.bits
        elif fault != "unclamped":
            code = code.clamp(0, 2**table.bits - 1)
        offset = 0 if fault == "no zero point" else zero
        q = (code - offset).long()
        w = part.weight.long() - part.zero_point.view(-1, *[1] * (part.weight.dim() - 1))
        if fault == "float activations":
            return self.float_product(x, w, part)
        if fault == "float weights":
            return self.float_product(q * scale, None, part)
        if fault == "swapped":
            w = w.flip(0)
        if conv:
            original = self.held[0]
            patches = F.unfold(q.double(), w.shape[2:], 1, original.padding, original.stride)
            size = [(n + 2 * p - kernel) // s + 1 for n, p, kernel, s in zip(
                x.shape[2:], original.padding, w.shape[2:], original.stride)]
            sums = (w.flatten(1) @ patches.long()).view(len(x), -1, *size)
        else:
            sums = q @ w.T
        if fault == "saturated":
            sums = sums.clamp(-4096, 4095)
        weight_scale = part.scale
        if fault == "one scale":
            weight_scale = weight_scale.mean().expand_as(weight_scale)
        if conv:
            weight_scale = weight_scale.view(-1, 1, 1)
        if fault == "float16 epilogue":
            return ((sums / 256).half() * 256).float() * (scale * weight_scale)
        return sums.float() * (scale * weight_scale)

    def float_product(self, x, w, part):
        original = self.held[0]
        if w is None:
            w = original.weight.narrow(1, part.start, part.stop - part.start)
        else:
            w = w * part.scale.view(-1, *[1] * (w.dim() - 1))
        if self.layer.kind == "conv2d":
            return F.conv2d(x, w, None, original.stride, original.padding)
        return F.linear(x, w)


class Backend:
    def __init__(self, *, fault):
        self.fault = fault

    def check(self, *, device):
        pass

    def lower(self, loaded, state):
        fault = self.fault
        if fault == "None":
            return None
        step, executed, uses = api.StepCursor("cpu"), {}, []
        network = copy_network(loaded.network, state.layers)
        if fault in ("float kernel", "simulated"):
            made = simulate(loaded, state)
            kernels = tuple(dataclasses.replace(use, kernel=KERNEL) for use in made.kernels)
            made.network.register_forward_hook(
                lambda *_: made.executed.__setitem__(KERNEL, len(kernels)))
            execution = "lowered" if fault == "float kernel" else "simulated"
            return dataclasses.replace(made, execution=execution, kernels=kernels)
        for name, layer in state.layers.items():
            original = find_layer(loaded.network, name)
            if fault != "plain without modules":
                replace_layer(network, name, Layer(layer, original, step, executed, fault))
            uses.append(api.KernelUse(layer=name, kernel=KERNEL, wbits=layer.wbits,
                abits=layer.abits, macs=loaded.topology.layer(name).macs))
        if fault == "plain without modules":
            network.register_forward_hook(lambda *_: executed.update({KERNEL: len(uses)}))
        if fault == "decoys":
            real = loaded.network
            def forward(x, timestep):
                type(network).forward(network, x, timestep)
                return real(x, timestep) * 1.5
            network.forward = forward
        if fault == "outside":
            network.register_forward_hook(
                lambda _, inputs, y: y * 1.5 if int(step.index) == 1 else y)
        if fault == "full batch outside":
            network.register_forward_hook(
                lambda _, inputs, y: torch.cat([y[:3], y[3:] * 1.5]))
        if fault != "cache left out":
            finish_lowering(network, loaded, state, step, executed)
        if fault == "short list":
            uses = uses[1:]
        return api.Lowered(network=network, step=step, execution="lowered",
            kernels=tuple(uses), executed=executed)


@api.hookimpl
def tfq_backends():
    yield api.BackendProvider(
        name="own", summary="", factory=f"{__name__}:Backend",
        options=(api.Option(name="fault", kind="str", default="none", choices=FAULTS, help="F."),),
        wbits=tuple(range(2, 9)), abits=tuple(range(2, 9)), devices=("cpu",),
    )
"""

SUITE = """\
schema = 1
suite = {{name = "own", threads = 1}}
sampling = {{sampler = "ddim", steps = {steps}, images = {images}, batch = {batch}, shard = 7}}
calibration = {{images = 2, batch = 2}}
model = [{{name = "tiny"}}]
quantizer = [{{name = "fp"}}, {{name = "rtn", wbits = [{wbits}], abits = [{abits}]}}]
backend = [{{name = "own", fault = "{fault}"}}]
metric = [{{name = "kernels"}}, {{name = "bits"}}]
"""


@pytest.fixture
def run(plugin_host, tmp_path, capsys):
    """A function that runs the backend with a fault: exit code, reason of the failure, facts."""
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    plugin_host.install("own", BACKEND, distribution="own-dist")

    def start(fault, wbits=4, abits=8, steps=3, images=2, batch=2, stage="lower"):
        suite = tmp_path / "own.toml"
        suite.write_text(
            SUITE.format(
                fault=fault, wbits=wbits, abits=abits, steps=steps, images=images, batch=batch
            )
        )
        folder = tmp_path / "run"
        code = main(["run", str(suite), "--run", str(folder), "--no-report"])
        capsys.readouterr()
        run = RunFolder.open(folder)
        reasons = [r for r in run.records() if r.status == "failed"]
        assert not [r for r in reasons if r.stage != stage]
        lowers = [
            run.artefacts.result("lower", cell["keys"]["lower"])
            for cell in run.plan()["cells"]
            if "own" in cell["label"] and run.artefacts.has("lower", cell["keys"]["lower"])
        ]
        samples = len(list(folder.glob("artefacts/sample/*")))
        return code, [r.reason for r in reasons], lowers, samples

    return start


@pytest.mark.parametrize("fault", ["none", "division"])
@pytest.mark.parametrize("bits", [(8, 8), (4, 8), (4, 4)])
def test_honest_kernels_pass_with_a_margin(run, fault, bits):
    """Exact integers, however the input's codes are rounded at a border: a tenth of the limit."""
    code, reasons, (facts,), samples = run(fault, *bits)
    assert (0, []) == (code, reasons)
    assert 2 == samples
    assert 13 == facts["layers"]["checked"]
    assert facts["layers"]["worst"]["share"] < 0.1
    assert facts["layers"]["worst"]["error"] < 1e-6
    assert facts["parity"]["relative"] < facts["parity"]["limit"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("plain", "'time_mlp.0' was said to run a low-bit kernel and multiplies in float"),
        ("plain without modules", "multiplies in float"),
        ("zeros", "'time_mlp.0' does not compute the state's integers"),
        ("noise", "does not compute the state's integers"),
        ("nan", "'time_mlp.0' gives values that are not finite"),
        ("simulated", "announced as 'lowered' and made a network that says it is 'simulated'"),
        ("float weights", "multiplies in float"),
        ("float activations", "multiplies in float"),
        ("no bias", "does not compute the state's integers"),
        ("no zero point", "does not compute the state's integers"),
        ("saturated", "does not compute the state's integers"),
        ("one scale", "does not compute the state's integers"),
        ("swapped", "does not compute the state's integers"),
        ("one channel", "'second.conv2' does not compute the state's integers"),
        ("one image", "does not compute the state's integers"),
        ("rounded down", "does not compute the state's integers"),
        ("wraps", "does not compute the state's integers"),
        ("unclamped", "does not compute the state's integers"),
        ("half", "does not compute the state's integers"),
        ("float16 epilogue", "does not compute the state's integers"),
        ("float kernel", "multiplies in float"),
        ("short list", "lists 12 layers, expected the state's 13"),
        ("decoys", "away from the simulation of the same integers"),
        ("None", "backend 'own' .*own-dist.* expected a Lowered, found NoneType"),
    ],
)
def test_each_fault_fails_its_cell(run, fault, message):
    """The reason names the layer; nothing is drawn with it, and full precision stays."""
    code, reasons, lowers, samples = run(fault)
    assert 3 == code
    (reason,) = reasons
    assert [] == lowers
    assert 1 == samples
    assert re.search(message, reason), reason


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("batch", "for image 0 of a batch of 3, the network's prediction is .* of its size away"),
        ("odd batch", "at step 3 .*for image 0 of a batch of 3, .* more than"),
        ("full batch outside", "at step 3 .*for image 3 of a batch of 4"),
        ("rows", "of a batch of 3, the network's prediction"),
        ("step", r"at step 1 \(0 to 6\), for image 0 of a batch of 2, the network's prediction"),
        ("outside", r"at step 1 \(0 to 6\), for image 0 of a batch of 2"),
        ("last step", "'time_mlp.0' .*: at step 6, in a call with 2 rows, its output"),
        ("kept", "'conv_in' does not compute the state's integers"),
    ],
)
def test_what_is_right_for_two_images_at_three_steps_only(run, fault, message):
    """Seven steps, batches of four and three: the reason says step and batch, nothing is drawn."""
    code, (reason,), lowers, samples = run(fault, steps=7, images=7, batch=4)
    assert (3, [], 1) == (code, lowers, samples)
    assert re.search(message, reason), reason


def test_a_batch_that_the_lower_stage_has_not_seen(run):
    """A later suite finds the lowered network checked for other batches: before it draws."""
    code, reasons, (facts,), samples = run("batch")
    assert (0, [], [2], 2) == (code, reasons, facts["calls"]["batches"], samples)
    code, (reason,), _, more = run("batch", images=4, batch=4, stage="sample")
    assert (3, samples + 1) == (code, more)
    assert "for image 0 of a batch of 4, the network's prediction" in reason
