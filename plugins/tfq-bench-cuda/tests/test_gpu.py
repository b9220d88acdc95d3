"""What only a GPU can show: exact kernels, parity of networks, capture of a step."""

from __future__ import annotations

import dataclasses
from dataclasses import fields, replace
from typing import ClassVar

import pytest
import torch

from tfq_bench.api import LoadedModel, Scheme, timestep_tensor
from tfq_bench.host.plugins import discover
from tfq_bench.pipeline.lower import lowering_facts
from tfq_bench.quant.calibrate.temporal import temporal_features
from tfq_bench.quant.lower.parity import network_parity
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.quant.state.temporal_cache import TemporalCache
from tfq_bench.seeds import noise
from tfq_bench.testing.contracts import BackendContract
from tfq_bench.testing.inputs import tiny_state
from tfq_bench.testing.tiny import load_tiny
from tfq_bench_cuda.backend import CudaBackend
from tfq_bench_cuda.kernels.borders import Geometry, border_sums, positions
from tfq_bench_cuda.kernels.operands import Additions, Factors, asked
from tfq_bench_cuda.kernels.reference import ReferenceKernels
from tfq_bench_cuda.kernels.runtime import Kernels
from tfq_bench_cuda.kernels.specs import ConvSpec, Ending, LinearSpec, QuantizeSpec, Tile
from tfq_bench_cuda.kernels.tiles import candidates, choose_tile
from tfq_bench_cuda.machine import check_machine

pytestmark = pytest.mark.gpu

REFERENCE = ReferenceKernels()

GEOMETRIES = {
    "3x3": Geometry(kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1)),
    "stride 2": Geometry(kernel=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1)),
    "unpadded": Geometry(kernel=(3, 3), stride=(2, 2), padding=(0, 0), dilation=(1, 1)),
    "1x1, stride 2": Geometry(kernel=(1, 1), stride=(2, 2), padding=(0, 0), dilation=(1, 1)),
    "5x5": Geometry(kernel=(5, 5), stride=(1, 1), padding=(2, 2), dilation=(1, 1)),
    "dilated": Geometry(kernel=(3, 3), stride=(1, 1), padding=(2, 2), dilation=(2, 2)),
    "not square": Geometry(kernel=(1, 3), stride=(1, 1), padding=(0, 1), dilation=(1, 1)),
}


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    """Of this machine's GPU."""
    return Kernels(check_machine("cuda"), "cuda")


def factors(weight, sums, index, places=None) -> Factors:
    """A product's side of the weights at one of three steps, every table at random."""
    generator = torch.Generator().manual_seed(7)
    outputs = len(weight)
    return Factors(
        weight=weight,
        sums=sums,
        positions=places,
        step=torch.tensor([index]),
        scale=torch.rand(3, generator=generator) + 0.01,
        zero_point=torch.tensor([0, 255, 77], dtype=torch.int32),
        weight_scale=torch.rand(outputs, generator=generator) * 1e-3,
        bias=torch.randn(outputs, generator=generator),
    )


def on_gpu(tensors):
    """The same operands on the GPU."""
    values = {field.name: getattr(tensors, field.name) for field in fields(tensors)}
    return replace(tensors, **{k: None if v is None else v.cuda() for k, v in values.items()})


def run(kernels, call, spec, code, sides, additions):
    """The expected and the found result of each of `sides`."""
    for side in sides:
        expected = getattr(REFERENCE, call)(spec, code, side, additions)
        found = getattr(kernels, call)(spec, code.cuda(), on_gpu(side), on_gpu(additions))
        yield expected, found.cpu()


@pytest.mark.parametrize("out", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    ("rows", "outputs", "inputs"),
    [(1, 3, 32), (77, 1280, 2048), (300, 320, 640), (1000, 136, 96), (4096, 640, 640)],
)
def test_linear_kernels_give_the_bits_of_the_reference(kernels, rows, outputs, inputs, out):
    """Sizes that fill no tile, tables at every step, an added residual."""
    generator = torch.Generator().manual_seed(rows)
    code = torch.randint(-128, 128, (rows, inputs), generator=generator, dtype=torch.int8)
    weight = torch.randint(-128, 128, (outputs, inputs), generator=generator, dtype=torch.int8)
    tile = choose_tile(rows, outputs, inputs, kernels.arch)
    sums = weight.sum(1, dtype=torch.int32)
    sides = [factors(weight, sums, index) for index in range(3)]
    for partial in (None, torch.randn(rows, outputs, generator=generator)):
        ending = Ending(out=out, partial=partial is not None)
        spec = LinearSpec(n=outputs, k=inputs, ending=ending, tile=tile)
        additions = Additions(partial=partial)
        for expected, found in run(kernels, "linear", spec, code, sides, additions):
            assert torch.equal(expected, found)


READERS = [
    *((name, False) for name, geometry in GEOMETRIES.items() if geometry.centred),
    *((name, True) for name in GEOMETRIES),
]


@pytest.mark.parametrize("size", [(3, 17, 12), (1, 5, 5), (2, 32, 32)])
@pytest.mark.parametrize(("name", "gather"), READERS)
def test_convolutions_give_the_bits_of_the_reference(kernels, name, size, gather):
    """Every border and zero point; odd sizes, one image and more, both ways to read pixels."""
    geometry = GEOMETRIES[name]
    gather = gather or kernels.gathers
    generator = torch.Generator().manual_seed(1)
    outputs, inputs, (count, *plane) = 72, 96, size
    code = torch.randint(-128, 128, (count, *plane, inputs), generator=generator, dtype=torch.int8)
    taps = torch.randint(
        -128, 128, (outputs, *geometry.kernel, inputs), generator=generator, dtype=torch.int8
    )
    sums = border_sums(taps.permute(0, 3, 1, 2), geometry, tuple(plane))
    place = positions(geometry, tuple(plane))
    spec = ConvSpec(
        n=outputs,
        c=inputs,
        geometry=geometry,
        gather=gather,
        ending=Ending(partial=True),
        tile=Tile(m=128, n=64, k=32, stages=3, threads=128),
    )
    partial = torch.randn(count * len(place), outputs, generator=generator)
    sides = [factors(taps.reshape(outputs, -1), sums, index, place) for index in range(3)]
    additions = Additions(partial=partial)
    for expected, found in run(kernels, "conv2d", spec, code, sides, additions):
        assert torch.equal(expected, found)


def added(ending, rows, images, outputs, generator) -> Additions:
    """What an ending asks for, floats of the order of 1; tables of three steps."""
    residual = torch.randn(rows, outputs, generator=generator)
    values = {
        "partial": torch.randn(rows, outputs, generator=generator),
        "shift": torch.randn(images, outputs, generator=generator),
        "gate": torch.randn(images, outputs, generator=generator),
        "residual": residual.to(getattr(torch, ending.residual)) if ending.residual else None,
        "inverse": torch.tensor([1.0, 0.3, 1.7]) * 2 ** (ending.bits - 3),
        "zero_point": torch.tensor([2 ** (ending.bits - 1), 1, 5], dtype=torch.int32),
    }
    return Additions(**{name: values[name] for name in asked(ending)})


def close(expected, found, out) -> bool:
    """Whether results behind an activation agree: codes within 1, and hardly any differ."""
    if out == "int8":
        far = (expected.int() - found.int()).abs()
        return bool(far.max() <= 1) and bool((far > 0).float().mean() < 1e-3)
    rounding = {"float32": 1e-5, "bfloat16": 2**-7, "float16": 2**-10}[out]
    return torch.allclose(expected.float(), found.float(), rtol=rounding, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "rows", "outputs", "inputs"), [(1, 77, 96, 64), (3, 200, 352, 640)]
)
def test_endings_of_linear_kernels(kernels, ending, images, rows, outputs, inputs):
    """The bits of the reference, or within a rounding of an activation; rows fill no tile."""
    generator = torch.Generator().manual_seed(rows)
    geglu = ending.activation == "geglu"
    accumulators = 2 if geglu else 1
    code = torch.randint(-128, 128, (images * rows, inputs), generator=generator, dtype=torch.int8)
    weight = torch.randint(
        -128, 128, (outputs * accumulators, inputs), generator=generator, dtype=torch.int8
    )
    additions = added(ending, images * rows, images, outputs, generator)
    tiles = candidates(images * rows, outputs, inputs, kernels.arch, accumulators=accumulators)
    tile = tiles[0] if images == 1 else max(tiles, key=lambda tile: tile.m * tile.n)
    spec = LinearSpec(n=outputs, k=inputs, ending=ending, tile=tile)
    side = factors(weight, weight.sum(1, dtype=torch.int32), 0)
    side = replace(side, weight_scale=torch.full((len(weight),), 1e-4 / inputs**0.5))
    sides = [replace(side, step=torch.tensor([index])) for index in range(3)]
    for expected, found in run(kernels, "linear", spec, code, sides, additions):
        if ending.activation:
            assert close(expected, found, ending.out)
        else:
            assert torch.equal(expected, found)


@pytest.mark.parametrize("gather", [False, True], ids=["copied", "gathered"])
def test_endings_of_convolutions(kernels, ending, gather):
    """The bits of the reference behind every border; each image has its shift and gate."""
    if ending.activation:
        ending = replace(ending, activation="")
    geometry, size = GEOMETRIES["3x3"], (17, 12)
    generator = torch.Generator().manual_seed(3)
    code = torch.randint(-128, 128, (3, *size, 64), generator=generator, dtype=torch.int8)
    taps = torch.randint(-128, 128, (96, 3, 3, 64), generator=generator, dtype=torch.int8)
    place = positions(geometry, size)
    sums = border_sums(taps.permute(0, 3, 1, 2), geometry, size)
    spec = ConvSpec(
        n=96,
        c=64,
        geometry=geometry,
        gather=gather or kernels.gathers,
        ending=ending,
        tile=Tile(m=128, n=64, k=64, stages=3, threads=128),
    )
    sides = [
        replace(
            factors(taps.reshape(96, -1), sums, index, place), weight_scale=torch.full((96,), 4e-6)
        )
        for index in range(3)
    ]
    additions = added(ending, 3 * len(place), 3, 96, generator)
    for expected, found in run(kernels, "conv2d", spec, code, sides, additions):
        assert torch.equal(expected, found)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("planes", [False, True], ids=["rows", "planes"])
@pytest.mark.parametrize(
    ("total", "start", "channels"), [(320, 0, 320), (384, 128, 256), (3, 0, 3), (50, 13, 37)]
)
@pytest.mark.parametrize("bits", [4, 8])
def test_codes_are_those_of_the_reference(kernels, total, start, channels, planes, dtype, bits):
    """Ties go to even, ends saturate, channels are filled up with zero codes."""
    generator = torch.Generator().manual_seed(2)
    shape = (2, total, 81) if planes else (161, total)
    x = torch.randn(shape, generator=generator) * 2**bits
    x.view(-1)[::5] = x.view(-1)[::5].floor() + 0.5
    x = x.to(getattr(torch, dtype))
    spec = QuantizeSpec(
        planes=planes, total=total, start=start, channels=channels, dtype=dtype, bits=bits
    )
    inverse = torch.tensor([1.0, 1 / 3])
    zero_point = torch.tensor([2 ** (bits - 1), 3], dtype=torch.int32)
    for index in (0, 1):
        arguments = (x, torch.tensor([index]), inverse, zero_point)
        found = kernels.quantize(spec, *(value.cuda() for value in arguments))
        assert torch.equal(REFERENCE.quantize(spec, *arguments), found.cpu())


def test_hopper_runs_wgmma(kernels):
    """On sm_90 a product of usual size is no `mma.sync`."""
    tile = choose_tile(4096, 640, 640, kernels.arch)
    spec = LinearSpec(n=640, k=640, ending=Ending(), tile=tile)
    wanted = "wgmma" if kernels.arch == "sm_90a" else "mma.sync"
    assert kernels.name(spec).endswith(wanted)


class TestContract(BackendContract):
    """What every backend must keep to."""

    schemes: ClassVar = tuple(Scheme(wbits=wbits, abits=8) for wbits in (8, 6, 4))
    device: ClassVar = "cuda"

    def make(self):
        """The backend with its own kernels."""
        return CudaBackend(batch=4)


@pytest.fixture(scope="module")
def embedded() -> LoadedModel:
    """The embedded CIFAR-10 U-Net on the GPU, ten DDIM steps."""
    table = discover()
    model = table.create(table.get("model", "cifar10"))
    network = model.load(device="cuda", dtype=torch.float32)
    return LoadedModel(
        model=model,
        network=network,
        topology=model.topology(network),
        sampler=model.sampler("ddim", 10),
        device="cuda",
    )


@pytest.mark.parametrize("wbits", [8, 4])
def test_every_layer_of_the_embedded_model_is_exact(embedded, layer_outputs, wbits):
    """Each layer gives the bits of the simulation, and so the next the same input."""
    state = tiny_state(embedded, Scheme(wbits=wbits, abits=8))
    simulated = simulate(embedded, state)
    lowered = CudaBackend(blocks=False).lower(embedded, state)
    facts = lowering_facts(embedded, state, lowered, simulated, execution="lowered")
    assert 0.0 == facts["parity"]["max_abs"]
    assert [] == [use.layer for use in lowered.kernels if use.fallback is not None]
    for step in (0, 9):
        expected, found = (layer_outputs(embedded, state, of, step) for of in (simulated, lowered))
        assert [] == [name for name in state.layers if not torch.equal(expected[name], found[name])]
    assert 0.0 == network_parity(embedded, simulated, lowered).max_abs


def test_a_captured_step_is_the_eager_one_at_every_step():
    """One CUDA graph, replayed at steps it was not captured at; tables and a cache per step."""
    loaded = load_tiny(device="cuda")
    state = tiny_state(loaded, Scheme(wbits=8, abits=8))
    features = temporal_features(loaded, loaded.network)
    mask = torch.tensor([True, False, True, False])
    cache = {
        name: TemporalCache(
            name=name, bits=16, values=rows.cpu().half(), scale=None, zero_point=None, selected=mask
        )
        for name, rows in features.items()
    }
    layers = {}
    for name, layer in state.layers.items():
        parts = []
        for part in layer.parts:
            table = part.activation
            growth = torch.linspace(1, 2, 4) if len(table.scale) == 1 else 1
            grown = dataclasses.replace(
                table,
                scale=table.scale.expand(4) * growth,
                zero_point=table.zero_point.expand(4).clone(),
            )
            parts.append(dataclasses.replace(part, activation=grown))
        layers[name] = dataclasses.replace(layer, parts=tuple(parts))
    state = dataclasses.replace(state, layers=layers, cache=cache)
    lowered = CudaBackend(batch=4).lower(loaded, state)
    x = noise(0, "graph", range(4), loaded.model.latent_shape, device="cuda")
    times = [timestep_tensor(t, 4, "cuda") for t in loaded.sampler.timesteps]
    t = times[0].clone()
    with torch.no_grad():
        expected = []
        for index, time in enumerate(times):
            lowered.step.set(index)
            expected.append(loaded.model.predict(lowered.network, x, time, {}))
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            found = loaded.model.predict(lowered.network, x, t, {})
        for index, time in enumerate(times):
            lowered.step.set(index)
            t.copy_(time)
            graph.replay()
            assert torch.equal(expected[index], found)
    assert not torch.equal(expected[0], expected[3])


def test_another_batch_size_compiles_nothing():
    """Number of images, and so of rows, is an argument of a kernel."""
    loaded = load_tiny(device="cuda")
    backend = CudaBackend(batch=4)
    lowered = backend.lower(loaded, tiny_state(loaded, Scheme(wbits=8, abits=8)))
    module = next(m for m in lowered.network.modules() if hasattr(m, "kernels"))
    counts = []
    for images in (4, 1, 7):
        x = noise(0, "batch", range(images), loaded.model.latent_shape, device="cuda")
        t = timestep_tensor(loaded.sampler.timesteps[0], images, "cuda")
        loaded.model.predict(lowered.network, x, t, {})
        counts.append(len(module.kernels._compiled))
    assert [counts[0]] * 3 == counts
