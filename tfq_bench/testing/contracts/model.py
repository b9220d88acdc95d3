"""What a model must keep to."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from tfq_bench.seeds import noise
from tfq_bench.testing.contracts.predictions import IMAGES
from tfq_bench.testing.fingerprint import same_tensors
from tfq_bench.types.networks import timestep_tensor

if TYPE_CHECKING:
    from tfq_bench.types.models import Model

__all__ = ["ModelContract"]


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
        model = self.make()
        network = self._load(model)
        assert not network.training, "the network is in training mode"
        for name, parameter in network.named_parameters():
            assert not parameter.requires_grad, f"{name} wants gradients"
            assert parameter.dtype == model.dtype, f"{name} has dtype {parameter.dtype}"

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
        return model.load(device=self.device, dtype=model.dtype)

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
