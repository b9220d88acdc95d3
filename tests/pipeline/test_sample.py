"""Image i is the same whatever else is drawn, and pairs across cells."""

import pytest
import torch
from safetensors.torch import load_file

from tfq_bench.errors import CellError
from tfq_bench.pipeline.sample import FILE, draw, save_images
from tfq_bench.quant.lower.simulate import simulate
from tfq_bench.testing.tiny import load_tiny

N = 6


def images(indices, *, batch=2, seed=0, sampler="ddim", change=lambda loaded: None):
    """uint8 images of the full-precision network."""
    loaded = load_tiny(sampler=sampler)
    change(loaded)
    lowered = simulate(loaded, None)
    return draw(loaded, lowered, indices, seed=seed, batch=batch, progress=lambda *_: None)


@pytest.mark.parametrize("sampler", ["ddim", "ddim-stochastic"])
def test_an_image_belongs_to_its_index(sampler):
    """Shards in any order and of any size give the images of one undivided draw."""
    whole = images(range(N), sampler=sampler)
    shards = {start: images(range(start, start + 2), sampler=sampler) for start in (4, 0, 2)}
    assert torch.equal(whole, torch.cat([shards[start] for start in sorted(shards)]))


@pytest.mark.parametrize("sampler", ["ddim", "ddim-stochastic"])
def test_batches_do_not_change_the_noise(sampler):
    """Another batch size may round sums differently, by no more than one of 256 levels."""
    one, all_at_once = (images(range(N), batch=batch, sampler=sampler).int() for batch in (1, N))
    assert (one - all_at_once).abs().max() <= 1


def test_seed_and_index_matter():
    """Two images differ, and so do two seeds."""
    first, second = images([0, 1])
    assert not torch.equal(first, second)
    assert not torch.equal(first, images([0], seed=1)[0])


def test_every_step_reads_its_own_tables():
    """The cursor stands at the step that is being computed, for every batch."""
    loaded = load_tiny(steps=3)
    lowered = simulate(loaded, None)
    seen = []
    lowered.network.register_forward_pre_hook(lambda *_: seen.append(int(lowered.step.index)))
    draw(loaded, lowered, range(4), seed=0, batch=2, progress=lambda *_: None)
    assert [0, 1, 2, 0, 1, 2] == seen


def test_progress_ends_at_one():
    """Fractions rise from step to step and end at the whole."""
    loaded, seen = load_tiny(), []
    lowered = simulate(loaded, None)
    draw(loaded, lowered, range(3), seed=0, batch=2, progress=lambda part, _: seen.append(part))
    assert sorted(seen) == seen
    assert 1.0 == seen[-1]


def test_values_that_are_not_finite():
    """A network that overflows fails its cell, naming the images; it yields no black pictures."""

    def spoil(loaded):
        with torch.no_grad():
            loaded.network.conv_out.bias.fill_(float("nan"))

    with pytest.raises(
        CellError, match="the network gave values that are not finite for images 2, 3"
    ):
        images([2, 3], change=spoil)


def test_file_holds_images_and_their_indices(tmp_path):
    """The index stands beside the images, so that any order of files can be undone."""
    drawn = images([4, 5])
    save_images(drawn, [4, 5], tmp_path)
    found = load_file(tmp_path / FILE)
    assert [4, 5] == found["index"].tolist()
    assert torch.equal(drawn, found["images"])
    assert torch.uint8 == found["images"].dtype
