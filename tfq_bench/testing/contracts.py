"""What plugins must keep to, as test classes to subclass.

Example::

    class TestMyQuantizer(QuantizerContract):
        schemes = (Scheme(wbits=4, abits=8),)

        def make(self, scheme):
            return MyQuantizer(scheme=scheme)

Every test runs on the CPU with the tiny model unless the subclass says otherwise.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from tfq_bench.errors import MetricError
from tfq_bench.keys import definition_id
from tfq_bench.pipeline.agreement import Agreement
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.pipeline.values import checked_values
from tfq_bench.protocols import NamesValues
from tfq_bench.quant.lower.simulate import SIMULATED_KERNEL, simulate
from tfq_bench.quant.lower.watched import watched_layers
from tfq_bench.quant.state.quantized_state import QuantizedState
from tfq_bench.quant.state.storage import load_state, save_state
from tfq_bench.seeds import generator, noise
from tfq_bench.testing.fingerprint import Fingerprint, same_tensors
from tfq_bench.testing.inputs import TinyInputs, tiny_state
from tfq_bench.testing.tiny import load_tiny
from tfq_bench.types import CalibrationData, Scheme
from tfq_bench.types.networks import timestep_tensor

if TYPE_CHECKING:
    from tfq_bench.protocols import Backend, EvaluationInputs, Metric, Quantizer
    from tfq_bench.types.models import Model
    from tfq_bench.types.networks import LoadedModel, Lowered

__all__ = ["BackendContract", "MetricContract", "ModelContract", "QuantizerContract"]

IMAGES = 4


class ModelContract:
    """What a `Model` must keep to.

    Attributes:
        samplers: names to test. steps: of each sampler. device: where the network runs.
    """

    samplers: ClassVar[tuple[str, ...]] = ("ddim",)
    steps: ClassVar[int] = 4
    device: ClassVar[str] = "cpu"

    def make(self) -> Model:
        """A new model object; to be implemented."""
        raise NotImplementedError

    def test_two_objects_are_the_same_model(self) -> None:
        """Digest and weights do not depend on when or how often the model is made."""
        one, other = self.make(), self.make()
        assert one.digest == other.digest, "the digest differs between two objects"
        same_tensors(self._load(one).state_dict(), self._load(other).state_dict(), "weights")

    def test_network_is_ready_for_inference(self) -> None:
        """It is in eval mode, in the dtype asked for, and nothing in it wants gradients."""
        network = self._load(self.make())
        assert not network.training, "the network is in training mode"
        for name, parameter in network.named_parameters():
            assert not parameter.requires_grad, f"{name} wants gradients"
            assert parameter.dtype == torch.float32, f"{name} has dtype {parameter.dtype}"

    def test_topology_describes_the_network(self) -> None:
        """Every layer exists with the stated shape and belongs to exactly one block."""
        model = self.make()
        network = self._load(model)
        topology = model.topology(network)
        modules = dict(network.named_modules())
        for layer in topology.layers:
            assert layer.name in modules, f"the network has no module {layer.name}"
            weight = modules[layer.name].weight
            assert isinstance(weight, Tensor)
            assert layer.weight_shape == tuple(weight.shape), f"{layer.name}: other weight shape"
            assert layer.macs > 0, f"{layer.name} does no work"
        names = [layer.name for layer in topology.layers]
        held = [name for block in topology.blocks for name in block.layers]
        assert sorted(names) == sorted(held), "a layer is in no block or in several"
        assert {layer.name: layer.block for layer in topology.layers} == {
            name: block.name for block in topology.blocks for name in block.layers
        }, "a layer names another block than the one that lists it"
        assert set(names) >= {*topology.time_mlp, *topology.time_projections}

    def test_layers_are_listed_in_execution_order(self) -> None:
        """Forward hooks fire in the topology's order."""
        model = self.make()
        network = self._load(model)
        expected = [layer.name for layer in model.topology(network).layers]
        modules = dict(network.named_modules())
        seen: list[str] = []
        for name in expected:
            modules[name].register_forward_hook(lambda *_, name=name: seen.append(name))
        self._predict(model, network)
        assert expected == list(dict.fromkeys(seen)), "the topology's order is not the network's"

    def test_prediction_has_the_shape_of_its_input(self) -> None:
        """One finite prediction per state, the same at every call."""
        model = self.make()
        network = self._load(model)
        first, second = self._predict(model, network), self._predict(model, network)
        assert first.shape == (IMAGES, *model.latent_shape)
        assert torch.isfinite(first).all(), "the prediction is not finite"
        assert torch.equal(first, second), "two calls differ"

    def test_timesteps_decrease(self) -> None:
        """A sampler calls the network once a step at least, from noise to image."""
        for name in self.samplers:
            timesteps = self.make().sampler(name, self.steps).timesteps
            # Some methods come to a timestep twice.
            assert self.steps <= len(timesteps)
            assert all(a >= b for a, b in pairwise(timesteps)), name
            assert timesteps[0] > timesteps[-1], name

    def test_sampler_is_pure_and_described(self) -> None:
        """A step depends on its arguments alone; the definition is JSON."""
        model = self.make()
        for name in self.samplers:
            sampler = model.sampler(name, self.steps)
            json.dumps(dict(sampler.definition), allow_nan=False)
            start = sampler.initial(self._noise(model, "x"))
            prediction = self._noise(model, "prediction")
            z = self._noise(model, "z") if sampler.stochastic else None
            before = start.clone()
            numbers = torch.random.get_rng_state()
            last = len(sampler.timesteps) - 1
            first = sampler.step(start, prediction, last, z)
            other = sampler.step(start, -prediction, 0, z)
            assert torch.equal(first, sampler.step(start, prediction, last, z)), name
            assert torch.equal(before, start), f"{name}: the step changed its input"
            assert start.shape == other.shape, f"{name}: the state's shape changed"
            for held in (sampler.network_input(start, 0), sampler.final(first)):
                assert held.shape == (IMAGES, *model.latent_shape), name
            assert torch.equal(numbers, torch.random.get_rng_state()), f"{name}: global generator"

    def test_decoded_images_are_bytes(self) -> None:
        """uint8 `[B, H, W, 3]` on the CPU."""
        model = self.make()
        images = model.decode(self._noise(model, "latents"))
        assert (torch.uint8, "cpu") == (images.dtype, images.device.type)
        assert (4, IMAGES, 3) == (images.dim(), images.shape[0], images.shape[-1])

    def test_conditions_go_by_image_index(self) -> None:
        """An image has the same condition in every batch."""
        model = self.make()
        together = model.conditions([2, 5, 3], device=self.device)
        for row, image in enumerate((2, 5, 3)):
            alone = model.conditions([image], device=self.device)
            assert set(together) == set(alone)
            for name, value in alone.items():
                assert torch.equal(value[0], together[name][row]), f"{name} of image {image}"

    def _load(self, model: Model) -> nn.Module:
        return model.load(device=self.device, dtype=torch.float32)

    def _noise(self, model: Model, purpose: str) -> Tensor:
        return noise(0, purpose, range(IMAGES), model.latent_shape, device=self.device)

    @torch.no_grad()
    def _predict(self, model: Model, network: nn.Module) -> Tensor:
        t = model.sampler(self.samplers[0], self.steps).timesteps[0]
        return model.predict(
            network,
            self._noise(model, "x"),
            timestep_tensor(t, IMAGES, self.device),
            model.conditions(range(IMAGES), device=self.device),
        )


class QuantizerContract:
    """What a `Quantizer` must keep to.

    Attributes:
        schemes: bits and policies to test.
    """

    schemes: ClassVar[tuple[Scheme, ...]] = (Scheme(wbits=8, abits=8),)

    def make(self, scheme: Scheme) -> Quantizer:
        """The quantizer for a scheme, with the options to test; to be implemented."""
        raise NotImplementedError

    def load(self) -> LoadedModel:
        """The model to quantize, loaded anew."""
        return load_tiny()

    def test_calibration_needs_exist(self) -> None:
        """It asks for steps of the sampler and for images it was given, each pair once."""
        loaded = self.load()
        for scheme in self.schemes:
            samples = self.make(scheme).calibration_needs(loaded, images=IMAGES).samples
            assert len(samples) == len(set(samples)), "a pair is asked for twice"
            steps = len(loaded.sampler.timesteps)
            assert all(0 <= s < steps and 0 <= i < IMAGES for s, i in samples)

    def test_same_generator_gives_the_same_bytes(self, tmp_path: Path) -> None:
        """Nothing but model, data and generator decides the state."""
        for number, scheme in enumerate(self.schemes):
            folders = [tmp_path / f"{number}-{name}" for name in ("one", "other")]
            for folder in folders:
                folder.mkdir()
                save_state(self._state(self.load(), scheme), folder)
            for file in sorted(folders[0].iterdir()):
                assert file.read_bytes() == (folders[1] / file.name).read_bytes(), file.name

    def test_model_and_global_generator_are_left_alone(self) -> None:
        """The network keeps weights, modules and hooks; torch's global generator stands still."""
        loaded = self.load()
        for scheme in self.schemes:
            before = Fingerprint(loaded.network)
            data = self._data(loaded, scheme)
            inputs = data.x.clone()
            random = torch.random.get_rng_state()
            self._quantize(loaded, scheme, data)
            before.check(loaded.network)
            assert torch.equal(inputs, data.x), "the calibration data were changed"
            assert torch.equal(random, torch.random.get_rng_state()), "global generator was used"

    def test_every_layer_is_quantized_or_exempt_with_a_reason(self) -> None:
        """No layer that is computed is forgotten; quantized layers stand in execution order."""
        loaded = self.load()
        for scheme in self.schemes:
            state = self._state(loaded, scheme)
            order = [layer.name for layer in loaded.topology.layers]
            dropped = state.dropped(loaded.topology)
            assert sorted(order) == sorted([*state.layers, *state.exempt, *dropped])
            assert [name for name in order if name in state.layers] == list(state.layers)
            assert all(state.exempt.values()), "a layer is exempt without a reason"
            assert (loaded.model.digest, scheme) == (state.model, state.scheme)

    def test_state_survives_the_disk(self, tmp_path: Path) -> None:
        """A saved and loaded state predicts the same values, bit for bit."""
        loaded = self.load()
        for number, scheme in enumerate(self.schemes):
            folder = tmp_path / str(number)
            folder.mkdir()
            state = self._state(loaded, scheme)
            save_state(state, folder)
            expected = _predictions(loaded, simulate(loaded, state))
            found = _predictions(loaded, simulate(loaded, load_state(folder)))
            assert torch.equal(expected, found), "the loaded state predicts other values"

    def _data(self, loaded: LoadedModel, scheme: Scheme) -> CalibrationData:
        needs = self.make(scheme).calibration_needs(loaded, images=IMAGES)
        return capture(loaded, needs, seed=1, batch=IMAGES, progress=_ignore)

    def _quantize(
        self, loaded: LoadedModel, scheme: Scheme, data: CalibrationData
    ) -> QuantizedState:
        return self.make(scheme).quantize(
            loaded, data, generator=generator(0, "contract"), progress=_ignore
        )

    def _state(self, loaded: LoadedModel, scheme: Scheme) -> QuantizedState:
        return self._quantize(loaded, scheme, self._data(loaded, scheme))


class BackendContract:
    """What a `Backend` must keep to.

    Attributes:
        schemes: bits to test. device: where networks run.
    """

    schemes: ClassVar[tuple[Scheme, ...]] = (Scheme(wbits=8, abits=8),)
    device: ClassVar[str] = "cpu"

    def make(self) -> Backend:
        """The backend with the options to test; to be implemented."""
        raise NotImplementedError

    def load(self) -> LoadedModel:
        """The model to lower, loaded anew."""
        return load_tiny(device=self.device)

    def test_this_machine_is_accepted(self) -> None:
        """`check` raises nothing where the contract runs."""
        self.make().check(device=self.device)

    def test_predictions_agree_with_the_simulation(self) -> None:
        """As a run checks it: at every step, and each row of a batch."""
        loaded = self.load()
        for scheme in self.schemes:
            state = tiny_state(loaded, scheme)
            lowered = self.make().lower(loaded, state)
            calls = Agreement(loaded, state, lowered, simulate(loaded, state))
            calls.every_step(together=IMAGES)
            calls.batch(IMAGES)

    def test_every_layer_computes_the_integers(self) -> None:
        """What a run checks before it samples, at every step of the sampler."""
        loaded = self.load()
        for scheme in self.schemes:
            state = tiny_state(loaded, scheme)
            lowered = self.make().lower(loaded, state)
            with watched_layers(loaded, state, lowered) as watch:
                _predictions(loaded, lowered)
            assert list(state.layers) == sorted(watch.checks, key=list(state.layers).index)

    def test_every_layer_says_how_it_runs(self) -> None:
        """One entry per quantized layer; what is simulated is no kernel and has a reason."""
        loaded = self.load()
        for scheme in self.schemes:
            state = tiny_state(loaded, scheme)
            lowered = self.make().lower(loaded, state)
            uses = lowered.kernels
            assert list(state.layers) == [use.layer for use in uses]
            for use in uses:
                layer = state.layers[use.layer]
                assert loaded.topology.layer(use.layer).macs == use.macs, use.layer
                if use.fallback is None:
                    assert lowered.execution != "lowered" or use.kernel != SIMULATED_KERNEL, (
                        use.layer
                    )
                    assert (layer.wbits, layer.abits) == (use.wbits, use.abits), use.layer

    def test_kernels_that_are_listed_really_run(self) -> None:
        """After one prediction exactly the listed kernels were executed."""
        loaded = self.load()
        for scheme in self.schemes:
            lowered = self.make().lower(loaded, tiny_state(loaded, scheme))
            _predictions(loaded, lowered)
            ran = {kernel for kernel, count in lowered.executed.items() if count > 0}
            assert {use.kernel for use in lowered.kernels} == ran

    def test_model_and_state_are_left_alone(self) -> None:
        """Lowering and running change neither the network nor the state."""
        loaded = self.load()
        for scheme in self.schemes:
            state = tiny_state(loaded, scheme)
            expected = _predictions(loaded, simulate(loaded, state))
            before = Fingerprint(loaded.network)
            _predictions(loaded, self.make().lower(loaded, state))
            before.check(loaded.network)
            assert torch.equal(expected, _predictions(loaded, simulate(loaded, state)))


class MetricContract:
    """What a `Metric` must keep to."""

    def make(self) -> Metric:
        """The metric with the options to test; to be implemented."""
        raise NotImplementedError

    def inputs(self) -> EvaluationInputs:
        """The cell to evaluate."""
        return TinyInputs()

    def test_every_name_stands_once(self) -> None:
        """No two values share a name, and `names`, where there are some, have every one."""
        metric = self.make()
        names = [value.definition.name for value in metric.evaluate(self.inputs())]
        assert names, "the metric gives no value"
        assert len(names) == len(set(names)), "two numbers have one name"
        if isinstance(metric, NamesValues):
            assert set(names) <= set(metric.names), "it gives a number that 'names' lacks"

    def test_values_repeat(self) -> None:
        """A second object gives the same definitions, values and replicates.

        Values and replicates only where they are not volatile.
        """
        inputs = self.inputs()
        random = torch.random.get_rng_state()
        one, other = self.make().evaluate(inputs), self.make().evaluate(inputs)
        assert torch.equal(random, torch.random.get_rng_state()), "global generator was used"
        for first, second in zip(one, other, strict=True):
            name = first.definition.name
            assert definition_id(first.definition) == definition_id(second.definition), name
            if not first.definition.volatile:
                assert repr(first.value) == repr(second.value), name
                assert first.replicates == second.replicates, name

    def test_values_are_well_formed(self) -> None:
        """They get through what every run checks before it stores a value."""
        inputs, metric = self.inputs(), self.make()
        try:
            checked_values(metric.evaluate(inputs), reference=inputs.reference_cell)
        except MetricError as error:
            raise AssertionError(str(error)) from error

    def test_images_are_left_alone(self) -> None:
        """What other metrics read too is not written into."""
        inputs = self.inputs()
        before = inputs.images.copy()
        self.make().evaluate(inputs)
        assert (before == inputs.images).all(), "the metric wrote into the images"


def _ignore(fraction: float, text: str) -> None:
    """Progress that nobody looks at."""


@torch.no_grad()
def _predictions(loaded: LoadedModel, lowered: Lowered) -> Tensor:
    """Predictions `[T, B, C, H, W]` of one noise at every step of the sampler."""
    model, device = loaded.model, loaded.device
    x = noise(0, "contract", range(IMAGES), model.latent_shape, device=device)
    condition = model.conditions(range(IMAGES), device=device)
    outputs = []
    for step, timestep in enumerate(loaded.sampler.timesteps):
        lowered.step.set(step)
        t = timestep_tensor(timestep, IMAGES, device)
        outputs.append(model.predict(lowered.network, x, t, condition).cpu())
    return torch.stack(outputs)
