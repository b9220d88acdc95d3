"""Keys and values of a text: computed when it changes, and read at every step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tfq_bench.seeds import noise
from tfq_bench_cuda.blocks.context import ContextCache, install_context

from .text_networks import at_every_step, load, lower, make_state

TEXT_LAYERS = ("attn2.to_k", "attn2.to_v", "caption_projection.linear_1", "linear_2")


class Counted:
    """A lowered network whose cache counts how often it computed."""

    def __init__(self, family: str, *steady: str) -> None:
        self.loaded = load(family)
        state = (
            at_every_step(make_state(self.loaded), *steady) if steady else make_state(self.loaded)
        )
        self.lowered, self.blocks = lower(self.loaded, state)
        self.network = self.lowered.network
        self.cache = install_context(self.network, self.blocks)

    @property
    def products(self) -> int:
        """How many layers' products were formed so far."""
        return sum(self.lowered.executed.values())


@pytest.fixture(scope="module")
def sdxl() -> Counted:
    """SD-XL's U-Net, its text's tables the same at every step."""
    return Counted("sdxl", *TEXT_LAYERS)


def text_of(counted: Counted, images: int, first: int = 0) -> dict[str, Tensor]:
    """Conditions of some images."""
    return counted.loaded.model.conditions(range(first, first + images), device="cpu")


def call(counted: Counted, condition: dict[str, Tensor], step: int = 0) -> Tensor:
    """One prediction."""
    images = len(condition["text"])
    counted.lowered.step.set(step)
    x = noise(0, "context", range(images), (4, 8, 8), device="cpu")
    t = torch.full((images,), 500)
    return counted.loaded.model.predict(counted.network, x, t, condition)


def uncached(counted: Counted, condition: dict[str, Tensor], step: int = 0) -> Tensor:
    """The same with keys and values computed in the call."""
    assert counted.cache is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counted.cache, "update", lambda _: False)
        for attention in counted.cache.attentions:
            patch.setattr(attention, "held", None)
        return call(counted, condition, step)


def test_predictions_are_those_without_a_cache(sdxl):
    """At every step, for one text and then another, of other batches too."""
    assert 8 == len(sdxl.cache.attentions)
    for images, first in ((2, 0), (2, 5), (3, 0), (2, 0)):
        condition = text_of(sdxl, images, first)
        for step in range(3):
            found = call(sdxl, condition, step)
            assert torch.equal(uncached(sdxl, condition, step), found)


def updated(cache: ContextCache, text: Tensor) -> tuple[bool, list[Tensor]]:
    """Whether it computed, and copies of what is held."""
    return cache.update(text), [y.clone() for one in cache.attentions for y in one.held]


def test_text_is_computed_when_it_changes(sdxl):
    """In place or as another tensor; not when another tensor holds the same."""
    cache, text = sdxl.cache, text_of(sdxl, 2)["text"]
    cache.update(text + 1)
    version = cache.version
    buffers = [y.data_ptr() for one in cache.attentions for y in one.held]
    changed, first = updated(cache, text)
    assert changed
    assert not cache.update(text)
    assert not cache.update(text.clone())
    assert not cache.update(text)
    text[1, 2] += 1.0
    changed, second = updated(cache, text)
    assert changed
    assert not any(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert all(torch.equal(one[0], other[0]) for one, other in zip(first, second, strict=True))
    assert version == cache.version
    assert buffers == [y.data_ptr() for one in cache.attentions for y in one.held]


def test_another_shape_gets_other_buffers(sdxl):
    """A graph captured before has to be captured anew: the version tells."""
    cache = sdxl.cache
    cache.update(text_of(sdxl, 2)["text"])
    version = cache.version
    assert cache.update(text_of(sdxl, 3)["text"])
    assert version + 1 == cache.version
    assert {(3, 7)} == {tuple(one.held[0].shape[:2]) for one in cache.attentions}
    assert cache.update(text_of(sdxl, 3)["text"][:, :5])
    assert version + 2 == cache.version


def test_inference_mode_may_come_and_go(sdxl):
    """Texts made in it are compared by their numbers; buffers can be written afterwards."""
    with torch.inference_mode():
        text = text_of(sdxl, 1)["text"]
        assert sdxl.cache.update(text)
        assert not sdxl.cache.update(text)
        text += 1
        assert sdxl.cache.update(text)
    assert not sdxl.cache.update(text.clone())
    assert sdxl.cache.update(text_of(sdxl, 1, first=3)["text"])


def test_products_are_formed_once_per_prompt(sdxl):
    """The second step computes less than the first, by a product of keys and one of values each."""
    condition = text_of(sdxl, 2, first=7)
    counts = []
    for step in range(3):
        before = sdxl.products
        call(sdxl, condition, step)
        counts.append(sdxl.products - before)
    assert [2 * 8, 0] == [counts[0] - counts[1], counts[1] - counts[2]]


def test_a_caption_is_projected_before():
    """PixArt's blocks see the projection of what its network is given."""
    counted = Counted("pixart", *TEXT_LAYERS)
    condition = text_of(counted, 2)
    found = call(counted, condition)
    assert 2 == len(counted.cache.attentions)
    assert torch.equal(uncached(counted, condition), found)


@pytest.mark.parametrize(
    ("family", "steady"),
    [
        ("pixart", ("attn2.to_k", "attn2.to_v")),
        ("pixart", ("attn2.to_k", "linear_1", "linear_2")),
        ("dit", TEXT_LAYERS),
    ],
)
def test_nothing_is_held_that_depends_on_the_step(family, steady):
    """Tables of the caption's projection or of values that differ by step, or no text at all."""
    assert Counted(family, *steady).cache is None


def test_a_network_that_changes_its_text_is_left_alone():
    """Its blocks do not see what it is given."""
    counted = Counted("sd", *TEXT_LAYERS)
    assert counted.cache is not None
    counted.network.encoder_hid_proj = torch.nn.Identity()
    assert install_context(counted.network, counted.blocks) is None
