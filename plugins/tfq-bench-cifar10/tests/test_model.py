"""The embedded models under the host's contract, and what a damaged installation is told."""

import logging
import shutil
from functools import partial

import pytest
import torch

from tfq_bench.api import AssetError, CellError, SuiteError
from tfq_bench.quant.guidance import guided_prediction
from tfq_bench.testing.contracts import ModelContract
from tfq_bench_cifar10.embedded import load_weights
from tfq_bench_cifar10.model import Cifar10Model, conditional, dit, unconditional
from tfq_bench_cifar10.network import NETWORKS


class OnRandomWeights(ModelContract):
    """With random weights: the contract does not depend on values."""

    samplers = ("ddim", "ddim-quadratic")

    @pytest.fixture(autouse=True)
    def _weights(self, random_weights, embed):
        embed(random_weights)


class TestUnconditional(OnRandomWeights):
    """The DDPM."""

    def make(self):
        """The model as the host makes it."""
        return unconditional()


class TestConditional(OnRandomWeights):
    """The U-Net with cross-attention."""

    def make(self):
        """The model as the host makes it."""
        return conditional(guidance=1.5)


class TestDit(OnRandomWeights):
    """The DiT."""

    def make(self):
        """The model as the host makes it."""
        return dit(guidance=1.5)


class TestHalf(TestConditional):
    """The U-Net with cross-attention in 16 bits."""

    def make(self):
        """The model as the host makes it."""
        return conditional(guidance=1.5, dtype="bfloat16")


class TestHalfDit(TestDit):
    """The DiT in 16 bits."""

    def make(self):
        """The model as the host makes it."""
        return dit(guidance=1.5, dtype="bfloat16")


GUIDED = pytest.mark.parametrize("make", [conditional, dit])


def predictions(model, classes):
    """The network's prediction for one state told each of the classes, `[n, 3, 32, 32]`."""
    network = model.load(device="cpu", dtype=torch.float32)
    x = torch.randn((1, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    x, t = x.expand(len(classes), -1, -1, -1), torch.full((len(classes),), 500)
    return network, x, t, model.predict(network, x, t, model.conditions(classes, device="cpu"))


@pytest.mark.parametrize(
    "make",
    [unconditional, partial(conditional, guidance=1.0), partial(dit, guidance=1.0)],
    ids=["unconditional", "conditional", "dit"],
)
def test_sixteen_bits_are_near_float32(random_weights, embed, make):
    """The network computes in the dtype it is asked for; its prediction is float32 all the same."""
    embed(random_weights)
    found = {}
    for dtype in ("float32", "bfloat16"):
        model = make(dtype=dtype)
        network = model.load(device="cpu", dtype=model.dtype)
        assert {value.dtype for value in network.parameters()} == {getattr(torch, dtype)}
        x = torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))
        condition = model.conditions([3, 4], device="cpu")
        found[dtype] = model.predict(network, x, torch.tensor([500, 500]), condition)
    assert found["bfloat16"].dtype == torch.float32
    distance = (found["bfloat16"] - found["float32"]).norm() / found["float32"].norm()
    assert 1e-4 < float(distance) < 0.03


@GUIDED
def test_an_image_is_of_the_class_of_its_last_digit(random_weights, embed, make):
    """Images 3 and 13 are told one class, image 4 another; the prediction follows what is told."""
    embed(random_weights)
    *_, prediction = predictions(make(guidance=1.0), [3, 13, 4])
    torch.testing.assert_close(prediction[0], prediction[1], rtol=1e-5, atol=1e-5)
    assert float((prediction[0] - prediction[2]).abs().max()) > 1e-3


@GUIDED
def test_guidance_moves_away_from_what_no_class_gives(random_weights, embed, make):
    """The harness steps on u + 3 (c - u), u being told the eleventh row: no class."""
    embed(random_weights)
    model = make(guidance=3.0)
    network, x, t, told = predictions(model, [0, 1])
    nothing = model.guidance(device="cpu").condition
    (name,) = nothing
    # What an eleventh class would be told; `conditions` itself never gives it.
    row = {
        "encoder_hidden_states": load_weights(model.network)[1],
        "class_labels": torch.arange(11),
    }
    assert torch.equal(row[name][10:].to(nothing[name].dtype), nothing[name])
    without = model.predict(
        network, x, t, {name: nothing[name].expand(2, *nothing[name].shape[1:])}
    )
    found = guided_prediction(model, network, x, t, model.conditions([0, 1], device="cpu"))
    torch.testing.assert_close(found, without + 3.0 * (told - without), rtol=1e-4, atol=1e-4)
    assert float((found - told).abs().max()) > 1e-3


@GUIDED
def test_scale_one_is_no_guidance(random_weights, embed, make):
    """The conditional prediction alone needs one branch, not two."""
    embed(random_weights)
    assert make(guidance=1.0).guidance(device="cpu") is None
    assert make(guidance=1.5).guidance(device="cpu").scale == 1.5


def test_the_unconditional_model_is_told_nothing():
    """No conditions, no guidance, and neither reads the weights."""
    assert unconditional().conditions([0, 1], device="cpu") == {}
    assert unconditional().guidance(device="cpu") is None


def test_the_shipped_weights_load():
    """The installed files agree with each other and fit the network."""
    network = unconditional().load(device="cpu", dtype=torch.float32)
    assert sum(value.numel() for value in network.parameters()) == 6_472_195


USES = {
    "digest": lambda model: model.digest,
    "load": lambda model: model.load(device="cpu", dtype=torch.float32),
    "conditions": lambda model: model.conditions([0], device="cpu"),
}


@pytest.mark.parametrize("suffix", ["safetensors", "json"])
@pytest.mark.parametrize("use", ["digest", "load"])
def test_weights_that_are_not_there_are_told_how_to_make(
    random_weights, tmp_path, embed, network, suffix, use
):
    """Either of the two files is asked for by its path, with the commands that train this model."""
    folder = shutil.copytree(random_weights, tmp_path / "weights")
    missing = folder / f"{network.file}.{suffix}"
    missing.unlink()
    embed(folder)
    with pytest.raises(AssetError) as caught:
        USES[use](Cifar10Model(network))
    message = str(caught.value)
    assert f"model '{network.model}': its weights are not embedded, expected {missing}" in message
    assert f"python -m tfq_bench_cifar10.train --network {network.name} --data" in message
    assert "python -m tfq_bench_cifar10.export --checkpoint" in message


@pytest.mark.parametrize("use", ["digest", "load", "conditions"])
def test_tampered_weights_are_refused(random_weights, tmp_path, embed, use):
    """One flipped bit gives both digests and the file, not other images."""
    folder = shutil.copytree(random_weights, tmp_path / "weights")
    path = folder / "conditional-ddpm.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    embed(folder)
    with pytest.raises(
        AssetError, match=r"conditional-ddpm\.safetensors: expected the SHA-256 [0-9a-f]{64}"
    ):
        USES[use](conditional(guidance=1.5))


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_provenance_without_a_digest_is_refused(random_weights, tmp_path, embed, text):
    """A damaged provenance is named, not ignored."""
    folder = shutil.copytree(random_weights, tmp_path / "weights")
    (folder / "unet-ddpm.json").write_text(text)
    embed(folder)
    with pytest.raises(AssetError, match=r"unet-ddpm\.json: expected JSON with the key"):
        USES["digest"](unconditional())


def test_models_differ_in_their_digest(random_weights, embed):
    """Results of one model are never found again for another."""
    embed(random_weights)
    assert len({Cifar10Model(network).digest for network in NETWORKS.values()}) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loading_is_silent_and_leaves_the_global_generator(
    random_weights, embed, caplog, network, dtype
):
    """Every parameter has the dtype; diffusers finds nothing to warn of; no number is drawn."""
    embed(random_weights)
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)  # it does not propagate
    random = torch.random.get_rng_state()
    try:
        loaded = Cifar10Model(network).load(device="cpu", dtype=dtype)
    finally:
        logger.removeHandler(caplog.handler)
    assert [] == caplog.records
    assert {dtype} == {value.dtype for value in loaded.parameters()}
    assert torch.equal(random, torch.random.get_rng_state())


def test_decoding_rounds_and_clips():
    """-1, 0 and 1 are 0, 128 and 255; what lies outside is clipped; channels come last."""
    latents = torch.tensor([-1.5, -1.0, 0.0, 0.999, 1.0, 7.0]).view(1, 1, 1, 6).expand(1, 3, 1, 6)
    expected = [[0, 0, 128, 255, 255, 255]] * 3
    assert expected == unconditional().decode(latents)[0, 0].T.tolist()


def test_statistics_are_offered_for_the_extractor_that_has_some(network):
    """All models are measured against the same: EfficientNet-Lite0's, and None for others."""
    expected = "reference-efficientnet-lite0.safetensors"
    assert expected == Cifar10Model(network).reference("efficientnet-lite0").name
    assert Cifar10Model(network).reference("inception") is None


@pytest.mark.parametrize(
    ("name", "steps"),
    [("ddim", 1001), ("ddim", 0), ("ddim", -1), ("ddim-quadratic", 1001), ("ddim-quadratic", 1)],
)
def test_impossible_steps_are_the_suites_mistake(name, steps):
    """The message names the model, the sampler and the number."""
    with pytest.raises(
        SuiteError, match=f"model 'cifar10-dit': sampler '{name}' takes .* found {steps};"
    ):
        dit(guidance=1.5).sampler(name, steps)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_no_pixels(value):
    """They would be black or white, and score as if they were images."""
    latents = torch.zeros(2, 3, 32, 32)
    latents[1, 0, 5, 5] = value
    with pytest.raises(CellError, match="1 of 2 images"):
        unconditional().decode(latents)
