"""What diffusers' own objects do when they are used is no change; what is done to them is one."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tfq_bench import api
from tfq_bench.pipeline.guard.fingerprint import Fingerprint
from tfq_bench.pipeline.guard.functions import Functions
from tfq_bench_diffusers.model import DiffusersModel
from tfq_bench_diffusers.samplers import SAMPLERS

GUIDED = ("sd", "sdxl", "dit", "pixart")


def load(make_folder, family, sampler="ddim"):
    """A tiny model of a family."""
    guidance = 3.0 if family in GUIDED else 1.0
    model = DiffusersModel(source=str(make_folder(family)), guidance=guidance)
    network = model.load(device="cpu", dtype=torch.float32)
    return api.LoadedModel(
        model=model,
        network=network,
        topology=model.topology(network),
        sampler=model.sampler(sampler, 4),
        device="cpu",
    )


@torch.no_grad()
def use(loaded):
    """One image, from its conditions to its pixels."""
    model, sampler = loaded.model, loaded.sampler
    condition = model.conditions([0], device="cpu")
    model.guidance(device="cpu")
    model.prompts([0])
    state = sampler.initial(torch.zeros(1, *model.latent_shape))
    for index, time in enumerate(sampler.timesteps):
        x = sampler.network_input(state, index)
        predicted = model.predict(loaded.network, x, torch.tensor([time]), condition)
        noise = torch.zeros_like(predicted) if sampler.stochastic else None
        state = sampler.step(state, predicted, index, noise)
    model.decode(sampler.final(state).clamp(-1, 1))


@pytest.mark.parametrize("family", ["ddpm", "ldm", *GUIDED])
def test_a_model_that_is_used_is_unchanged(make_folder, family):
    """Decoder, tokenizers and text encoders are loaded meanwhile, by code that is watched then."""
    loaded = load(make_folder, family)
    before, functions = Fingerprint(loaded), Functions()
    functions.add_classes(before.classes)
    for _ in range(3):
        use(loaded)
        assert [] == before.changes()
        assert [] == functions.restore()
        functions.add_classes(before.classes)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_a_sampler_holds_counts(make_folder, sampler):
    """Its schedule, and the tables that it made of it."""
    loaded = load(make_folder, "ddpm", sampler)
    before = Fingerprint(loaded)
    use(loaded)
    assert [] == before.changes()
    loaded.sampler._schedule.clip = 0.25
    loaded.sampler._schedule.final_alpha_bar = 0.5
    loaded.sampler._schedule.alpha_bar[3] *= 0.9
    names = ("alpha_bar", "clip", "final_alpha_bar")
    assert [f"sampler._schedule.{name}" for name in names] == sorted(before.changes())


CHANGES = {
    "scale": lambda one: setattr(one, "scale", 0.1),
    "heads": lambda one: setattr(one, "heads", 1),
    "rescale_output_factor": lambda one: setattr(one, "rescale_output_factor", 2.0),
    "processor": lambda one: setattr(one, "processor", type("Fast", (), {})()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_attributes_of_diffusers_modules_count(make_folder, name):
    """Numbers that no list of constants names, and what computes attention."""
    loaded = load(make_folder, "ddpm")
    before = Fingerprint(loaded)
    where, attention = next(
        (path, one)
        for path, one in loaded.network.named_modules()
        if type(one).__name__ == "Attention"
    )
    CHANGES[name](attention)
    assert [f"network.{where}.{name}"] == before.changes()


def test_a_decoder_counts_from_when_it_is_loaded(make_folder):
    """So does what is beside it."""
    loaded = load(make_folder, "ldm")
    before = Fingerprint(loaded)
    use(loaded)
    assert [] == before.changes()
    loaded.model._decoder._scale *= 2
    loaded.model._decoder._network.decoder.conv_out.weight.data.mul_(2)
    expected = ["_network.decoder.conv_out.weight", "_scale"]
    assert [f"model._decoder.{name}" for name in expected] == sorted(before.changes())


def test_another_part_of_the_model_is_a_change(make_folder):
    """Of the same content, even: nobody knows what else it does."""
    loaded = load(make_folder, "ddpm")
    before = Fingerprint(loaded)
    other = dataclasses.replace(loaded).model.sampler("ddim", 4)
    object.__setattr__(loaded, "sampler", other)
    assert ["loaded.sampler"] == before.changes()
