"""The embedded model under the host's contract, and what a damaged installation is told."""

import logging
import shutil

import pytest
import torch

from tfq_bench.api import AssetError, SuiteError
from tfq_bench.testing.contracts import ModelContract
from tfq_bench_cifar10.model import Cifar10Model


class TestContract(ModelContract):
    """Cifar10Model with random weights: the contract does not depend on values."""

    samplers = ("ddim", "ddim-quadratic")

    @pytest.fixture(autouse=True)
    def _weights(self, random_weights, embed):
        embed(random_weights)

    def make(self):
        """The model as the host makes it."""
        return Cifar10Model()


def test_the_shipped_weights_load():
    """The installed files agree with each other and fit the network."""
    network = Cifar10Model().load(device="cpu", dtype=torch.float32)
    assert sum(value.numel() for value in network.parameters()) == 6_472_195


@pytest.mark.parametrize("name", ["unet-ddpm.safetensors", "provenance.json"])
@pytest.mark.parametrize("use", ["digest", "load"])
def test_missing_files_are_named(random_weights, tmp_path, embed, name, use):
    """Each of the two files is asked for by its path, however the model is used first."""
    folder = shutil.copytree(random_weights, tmp_path / "weights")
    (folder / name).unlink()
    embed(folder)
    with pytest.raises(AssetError, match=f"missing, expected {folder / name}; reinstall"):
        model_use(use)


@pytest.mark.parametrize("use", ["digest", "load"])
def test_tampered_weights_are_refused(random_weights, tmp_path, embed, use):
    """One flipped bit gives both digests and the file, not other images."""
    folder = shutil.copytree(random_weights, tmp_path / "weights")
    content = bytearray((folder / "unet-ddpm.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "unet-ddpm.safetensors").write_bytes(content)
    embed(folder)
    with pytest.raises(
        AssetError, match=r"unet-ddpm\.safetensors: expected the SHA-256 [0-9a-f]{64}"
    ):
        model_use(use)


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_provenance_without_a_digest_is_refused(random_weights, tmp_path, embed, text):
    """A damaged provenance is named, not ignored."""
    folder = shutil.copytree(random_weights, tmp_path / "weights")
    (folder / "provenance.json").write_text(text)
    embed(folder)
    with pytest.raises(AssetError, match=r"provenance\.json: expected JSON with the key"):
        model_use("digest")


def model_use(use: str) -> None:
    """Asks for the digest or the network."""
    if use == "digest":
        _ = Cifar10Model().digest
    else:
        Cifar10Model().load(device="cpu", dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loading_is_silent_and_leaves_the_global_generator(random_weights, embed, caplog, dtype):
    """Every parameter has the dtype; diffusers finds nothing to warn of; no number is drawn."""
    embed(random_weights)
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)  # it does not propagate
    random = torch.random.get_rng_state()
    try:
        network = Cifar10Model().load(device="cpu", dtype=dtype)
    finally:
        logger.removeHandler(caplog.handler)
    assert [] == caplog.records
    assert {dtype} == {value.dtype for value in network.parameters()}
    assert torch.equal(random, torch.random.get_rng_state())


def test_decoding_rounds_and_clips():
    """-1, 0 and 1 are 0, 128 and 255; what lies outside is clipped; channels come last."""
    latents = torch.tensor([-1.5, -1.0, 0.0, 0.999, 1.0, 7.0]).view(1, 1, 1, 6).expand(1, 3, 1, 6)
    expected = [[0, 0, 128, 255, 255, 255]] * 3
    assert expected == Cifar10Model().decode(latents)[0, 0].T.tolist()


def test_statistics_are_offered_for_the_extractor_that_has_some():
    """A path for EfficientNet-Lite0, None for an extractor without embedded statistics."""
    assert Cifar10Model().reference("efficientnet-lite0").is_file()
    assert Cifar10Model().reference("inception") is None


@pytest.mark.parametrize(
    ("name", "steps"),
    [("ddim", 1001), ("ddim", 0), ("ddim", -1), ("ddim-quadratic", 1001), ("ddim-quadratic", 1)],
)
def test_impossible_steps_are_the_suites_mistake(name, steps):
    """The message names the sampler and the number."""
    with pytest.raises(
        SuiteError, match=f"sampler '{name}' of model 'cifar10' takes .* found {steps};"
    ):
        Cifar10Model().sampler(name, steps)
