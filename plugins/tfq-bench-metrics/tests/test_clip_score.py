"""CLIP score with a tiny CLIP model from a folder."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torchmetrics.functional.multimodal import clip_score as torchmetrics_clip_score

from tfq_bench.api import AssetError, MetricError
from tfq_bench.keys import definition_id
from tfq_bench.stats.intervals import bootstrap_indices
from tfq_bench.testing.contracts import MetricContract
from tfq_bench.testing.inputs import TinyInputs
from tfq_bench.testing.tiny import TinyModel
from tfq_bench_metrics import clip_model
from tfq_bench_metrics.clip_score import ClipScore, clip_scores

PROMPTS = ("a red fox", "two dogs", "the sea", "z", "fast hare")
TOKENS = 16


class Speaker(TinyModel):
    """The tiny model, whose images have prompts that repeat."""

    texts: tuple[str, ...] | None = PROMPTS

    def prompts(self, images):
        """By index; None when there are no texts."""
        return None if self.texts is None else [self.texts[i % len(self.texts)] for i in images]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    """A CLIP model of random weights that knows single letters and 24x24 pixels."""
    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(97 + i) for i in range(26)]
    tokens = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=TOKENS)
    tokenizer.save_pretrained(folder)
    layers = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = transformers.CLIPConfig(
        text_config={
            **layers,
            "vocab_size": len(tokens),
            "max_position_embeddings": TOKENS,
            "bos_token_id": 52,
            "eos_token_id": 53,
            "pad_token_id": 53,
        },
        vision_config={**layers, "image_size": 24, "patch_size": 8},
        projection_dim=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        network = transformers.CLIPModel(config)
        for parameter in network.parameters():  # the initial ones hardly look at their input
            torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(folder)
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}
    )
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def speaking(make_inputs, tiny):
    """Inputs of a cell whose images have prompts."""
    return make_inputs(loaded=replace(tiny, model=Speaker()))


def direct_scores(folder: Path, images: np.ndarray, prompts: list[str]) -> np.ndarray:
    """100 cos in float64, one image and one unpadded prompt at a time."""
    network = transformers.CLIPModel.from_pretrained(folder).double().eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    processor = transformers.CLIPImageProcessorPil.from_pretrained(folder)
    found = []
    for image, prompt in zip(images, prompts, strict=True):
        pixels = processor(images=image, return_tensors="pt")["pixel_values"].double()
        with torch.no_grad():
            seen = network.get_image_features(pixel_values=pixels).pooler_output[0]
            said = network.get_text_features(**tokenizer(prompt, return_tensors="pt"))
        text = said.pooler_output[0]
        found.append(100 * float(seen @ text / (seen.norm() * text.norm())))
    return np.array(found)


class TestContract(MetricContract):
    """The contract of metrics."""

    @pytest.fixture(autouse=True)
    def _folder(self, clip_folder):
        self._weights = str(clip_folder)

    def make(self) -> ClipScore:
        """With the tiny CLIP model."""
        return ClipScore(weights=self._weights, hub="")

    def inputs(self) -> TinyInputs:
        """Of a model with prompts."""
        inputs = TinyInputs()
        inputs.loaded = replace(inputs.loaded, model=Speaker())
        return inputs


def test_score_is_the_mean_cosine_in_float64(clip_folder, speaking):
    """Value and replicates follow from scores that are computed one by one."""
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(len(speaking.images))]
    direct = direct_scores(clip_folder, speaking.images, prompts)
    assert direct.min() < 0 < direct.max()  # one image tells whether scores are clipped
    assert np.ptp(direct) > 5
    expected = np.maximum(direct, 0.0)
    (value,) = ClipScore(weights=str(clip_folder), hub="").evaluate(speaking)
    assert pytest.approx(expected.mean(), rel=1e-5) == value.value
    assert len(expected) == value.n
    drawn = bootstrap_indices(len(expected), len(value.replicates))
    assert pytest.approx(expected[drawn].mean(axis=1), rel=1e-5) == value.replicates
    assert value.interval.low < value.value < value.interval.high
    # It pairs with other cells of the same noise, but is measured against none.
    assert value.pairing is not None
    assert value.reference is None


def test_score_is_that_of_torchmetrics(clip_folder, speaking):
    """The same number for images that are not unrelated to their prompts."""
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(len(speaking.images))]
    related = direct_scores(clip_folder, speaking.images, prompts) > 0
    network = transformers.CLIPModel.from_pretrained(clip_folder)
    processor = transformers.CLIPProcessor(
        transformers.CLIPImageProcessorPil.from_pretrained(clip_folder),
        transformers.CLIPTokenizer.from_pretrained(clip_folder),
    )

    def made():
        # torchmetrics 1.9 expects the plain tensors that transformers gave before version 5.
        adapted = SimpleNamespace(
            config=network.config,
            get_image_features=lambda pixels: network.get_image_features(pixels).pooler_output,
            get_text_features=lambda *read: network.get_text_features(*read).pooler_output,
        )
        adapted.to = lambda device: adapted
        return adapted, processor

    images = torch.from_numpy(speaking.images[related]).permute(0, 3, 1, 2)
    texts = [prompt for prompt, kept in zip(prompts, related, strict=True) if kept]
    with torch.no_grad():
        expected = float(torchmetrics_clip_score(images, texts, made))
    found = ClipScore(weights=str(clip_folder), hub="")._scores(speaking)
    assert len(texts) > 3
    assert expected == pytest.approx(found[related].mean(), rel=1e-5)


def test_scores_do_not_depend_on_batches(clip_folder, speaking, monkeypatch):
    """Neither do other images of a batch count, nor how long other prompts are."""
    model = speaking.loaded.model
    model.texts = ("a", "a much longer text", "b c")
    whole = ClipScore(weights=str(clip_folder), hub="")._scores(speaking)
    monkeypatch.setattr(clip_model, "BATCH", 3)
    np.testing.assert_allclose(
        whole, ClipScore(weights=str(clip_folder), hub="")._scores(speaking), rtol=1e-5, atol=1e-4
    )


def test_scores_lie_between_0_and_100():
    """Opposite features give 0, equal ones 100, whatever their lengths."""
    images = np.array([[1, 0], [1, 0], [3, 4]], np.float32)
    texts = np.array([[-2, 0], [0.5, 0], [3, 0]], np.float32)
    assert pytest.approx([0.0, 100.0, 60.0]) == clip_scores(images, texts)


def definition(folder, inputs):
    """Of the one score of this CLIP model."""
    (value,) = ClipScore(weights=str(folder), hub="").evaluate(inputs)
    return value.definition


def test_definition_covers_prompts_and_clip_model(clip_folder, speaking, tmp_path):
    """Other prompts or another CLIP model make another number; a gate allows 0.1 of 100."""
    one = definition(clip_folder, speaking)
    assert one.margin == 0.1
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    (copy / "README.md").write_text("not read")
    same = definition(copy, speaking)
    assert definition_id(one) == definition_id(same)
    config = copy / "preprocessor_config.json"
    config = config if config.is_file() else copy / "processor_config.json"
    config.write_text(config.read_text() + "\n")
    resized = definition(copy, speaking)
    assert definition_id(one) != definition_id(resized)
    speaking.loaded.model.texts = ("another",)
    other = definition(clip_folder, speaking)
    assert definition_id(one) != definition_id(other)


def test_prompts_that_are_cut_are_told(clip_folder, speaking, caplog):
    """A prompt beyond CLIP's length counts up to there, and the log says so."""
    long = "x y z " * TOKENS
    speaking.loaded.model.texts = (long,)
    with caplog.at_level(logging.WARNING, "tfq_bench"):
        cut = ClipScore(weights=str(clip_folder), hub="")._scores(speaking)
    assert "1 of 1 prompts are longer than the 16 tokens" in caplog.text
    speaking.loaded.model.texts = (long + "q",)
    expected = ClipScore(weights=str(clip_folder), hub="")._scores(speaking)
    np.testing.assert_array_equal(expected, cut)


def test_models_without_text_have_no_score(clip_folder, make_inputs, speaking):
    """Whether they lack the method or say that they have no prompts."""
    metric = ClipScore(weights=str(clip_folder), hub="")
    with pytest.raises(MetricError, match=r"images have none; leave .* out"):
        metric.evaluate(make_inputs())
    speaking.loaded.model.texts = None
    with pytest.raises(MetricError, match="images have none"):
        metric.evaluate(speaking)


def test_prompts_of_another_number_are_refused(clip_folder, speaking):
    """One prompt would otherwise be compared with every image."""
    speaking.loaded.model.prompts = lambda images: ["a"]
    with pytest.raises(MetricError, match=r"Speaker\.prompts .* expected 8, found 1"):
        ClipScore(weights=str(clip_folder), hub="").evaluate(speaking)


def test_missing_model_comes_with_an_offer(tmp_path, monkeypatch):
    """Neither an empty cache nor a folder that is not there starts a download."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(AssetError, match=r"not in the cache.*assets fetch openai/clip-vit-large"):
        ClipScore(weights="", hub="openai/clip-vit-large-patch14")
    with pytest.raises(AssetError, match=r"not in the cache.*assets fetch some/clip"):
        ClipScore(weights="", hub="some/clip")
    with pytest.raises(AssetError, match=r"no folder .*absent\. .*set 'weights'"):
        ClipScore(weights=str(tmp_path / "absent"), hub="")


def test_cached_hub_id_is_read(clip_folder, speaking, tmp_path, monkeypatch):
    """A snapshot in the hub's cache is the same model as its folder."""
    cached = tmp_path / "models--some--clip"
    shutil.copytree(clip_folder, cached / "snapshots" / ("0" * 40))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (expected,) = ClipScore(weights=str(clip_folder), hub="").evaluate(speaking)
    assert [expected] == list(ClipScore(weights="", hub="some/clip").evaluate(speaking))


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("*.safetensors", "weights"),
        ("config.json", r"config\.json"),
        ("*processor_config.json", "an image processor"),
        ("[tv]o*.json", "a tokenizer"),
    ],
)
def test_incomplete_folders_are_refused(clip_folder, tmp_path, pattern, told):
    """What is absent is named; nothing is put in its place."""
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    for path in copy.glob(pattern):
        path.unlink()
    with pytest.raises(AssetError, match=f"lacks {told}"):
        ClipScore(weights=str(copy), hub="")


def test_half_a_model_and_damaged_weights_are_refused(clip_folder, speaking, tmp_path):
    """A text encoder alone has no vision weights, which would otherwise be drawn at random."""
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    weights = copy / "model.safetensors"
    text = {name: value for name, value in load_file(weights).items() if "vis" not in name}
    save_file(text, weights, {"format": "pt"})
    with pytest.raises(AssetError, match=r"lacks \d+ weights of a CLIP model, .*vis"):
        ClipScore(weights=str(copy), hub="").evaluate(speaking)
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(AssetError, match=r"copy cannot be read .*assets fetch"):
        ClipScore(weights=str(copy), hub="").evaluate(speaking)


def test_without_transformers_the_extra_is_named(clip_folder, monkeypatch):
    """An installation without the extra says which it needs."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(AssetError, match=r"pip install 'tfq-bench-metrics\[clip\]'"):
        ClipScore(weights=str(clip_folder), hub="")


def test_loading_prints_nothing(clip_folder, speaking, capfd):
    """Neither bars nor warnings; the settings of transformers are as before."""
    chatter = transformers.utils.logging
    before = chatter.is_progress_bar_enabled(), chatter.get_verbosity()
    assert before[0]
    ClipScore(weights=str(clip_folder), hub="").evaluate(speaking)
    assert ("", "") == tuple(capfd.readouterr())
    assert before == (chatter.is_progress_bar_enabled(), chatter.get_verbosity())
