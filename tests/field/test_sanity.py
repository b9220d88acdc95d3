"""Images that show nothing are called so in words, first of all, and fail the build.

Closeness to a black picture is perfect for another black picture: PSNR 100, and a gate that passes.
"""

import numpy as np
import pytest
from scipy.stats import norm

from tfq_bench.cli import main
from tfq_bench.host import builtin
from tfq_bench.metrics.sanity import image_fault
from tfq_bench.store.run import RunFolder

(SATURATED,) = (
    option.default
    for metric in builtin.tfq_metrics()
    if metric.name == "sanity"
    for option in metric.options
)


def fault(images):
    """What is wrong with images, by the limit that the option has by default."""
    return image_fault(images, SATURATED)


MODEL = """
import torch

from tfq_bench import api
from tfq_bench.testing.tiny import TinyModel


class Model(TinyModel):
    def load(self, *, device, dtype):
        network = super().load(device=device, dtype=dtype)
        {load}
        return network

    def predict(self, network, x, timestep, condition):
        found = super().predict(network, x, timestep, condition)
        return {predict}

    def decode(self, latents):
        images = super().decode(latents)
        return {decode}

    @property
    def digest(self):
        return "broken"

    @digest.setter
    def digest(self, value):
        pass


@api.hookimpl
def tfq_models():
    yield api.ModelProvider(
        name="broken", summary="", factory=f"{{__name__}}:Model", samplers=("ddim",), gmac=0.001
    )
"""
SUITE = """\
schema = 1
suite = {{name = "sanity", threads = 1}}
sampling = {{steps = {steps}, images = {images}, batch = 4, shard = 4}}
calibration = {{images = 2, batch = 2}}
model = [{{name = "broken"}}]
quantizer = [{{name = "fp"}}, {{name = "rtn", wbits = 8, abits = 8}}]
backend = [{{name = "simulate"}}]
metric = [{{name = "paired"}}, {{name = "bits"}}{more}]
"""
ZERO = "[p.zero_() for p in network.parameters()]"


@pytest.fixture
def run(plugin_host, tmp_path, capfd):
    """A function that runs the model with parts replaced: exit code, output, run folder."""

    def call(
        name="run", *, load="pass", predict="found", decode="images", steps=5, images=4, more=""
    ):
        text = MODEL.format(load=load, predict=predict, decode=decode)
        plugin_host.install("broken", text, distribution="broken-dist")
        suite = tmp_path / "suite.toml"
        suite.write_text(SUITE.format(steps=steps, images=images, more=more))
        folder = tmp_path / name
        code = main(["run", str(suite), "--run", str(folder), "--no-report"])
        shown = capfd.readouterr()
        assert "Traceback" not in shown.out + shown.err
        return code, shown.out, RunFolder(folder)

    return call


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"decode": "images * 0"}, "are black (all 4)"),
        ({"decode": "images * 0 + 255"}, "are white (all 4)"),
        ({"decode": "images * 0 + 127"}, "are one plain colour each (all 4)"),
        ({"decode": "images[:1].expand_as(images)"}, "are all alike (all 4)"),
        ({"load": ZERO}, "the full-precision network predicts nothing but zeros"),
        ({"load": ZERO}, "are black and white points: 9"),
        ({"predict": "found * 0 + 0.3"}, "predicts one constant for the whole image"),
        (
            {"predict": "found.mean(dim=(1, 2, 3), keepdim=True).expand_as(found)"},
            "predicts one constant for the whole image",
        ),
        ({"predict": "found[:1].expand_as(found)"}, "predicts the same for every noise"),
    ],
)
def test_a_broken_reference_is_said_first(run, capfd, parts, words):
    """On the first line of the run's table and of `status`, with exit code 3."""
    code, out, folder = run(**parts)
    assert 3 == code
    first = out.splitlines()[0]
    assert first.startswith("BROKEN IMAGES: broken / fp FP / eager: ")
    assert words in first
    assert "No number measured on such images, or against them, means anything" in first
    main(["status", str(folder.path)])
    assert first == capfd.readouterr().out.splitlines()[0]


def test_a_cell_that_is_compared_with_broken_images(run):
    """Its own may be as broken; PSNR 100 does not stand alone. All numbers stay on record."""
    code, _, folder = run(decode="images * 0")
    assert 3 == code
    records = folder.records()
    psnr = [r.metric.value for r in records if r.metric and r.metric.definition.name == "psnr"]
    assert [100.0] == psnr
    broken = {record.label: record.reason for record in records if record.broken_images}
    assert {"broken / fp FP / eager", "broken / rtn W8A8 / simulate"} == set(broken)
    reason = broken["broken / rtn W8A8 / simulate"]
    assert "its images are black (all 4)" in reason
    assert "the images of its full-precision reference are black (all 4)" in reason


def test_a_gate_fails_on_broken_images(run, plugin_host, capfd, tmp_path):
    """Every number is what the baseline has: the control alone fails it, with its reason."""
    baseline = tmp_path / "baseline.json"
    more = ', {name = "sanity", saturated = 2.0}'
    points = "(images > 127).to(torch.uint8) * 255"
    _, _, folder = run("allowed", decode=points, more=more)
    assert 0 == main(["baseline", "save", str(folder.path), "-o", str(baseline)])
    assert 0 == main(["gate", str(folder.path), "--baseline", str(baseline)])
    _, _, folder = run("refused", decode=points)
    capfd.readouterr()
    assert 1 == main(["gate", str(folder.path), "--baseline", str(baseline)])
    shown = capfd.readouterr()
    assert "sanity" in shown.out + shown.err
    assert "black and white points" in shown.out + shown.err


def test_broken_images_are_found_again_by_the_next_run(run, plugin_host, tmp_path, capfd):
    """A failure is never finished: the same command says the same."""
    first = run(decode="images * 0")[:2]
    code = main(
        ["run", str(tmp_path / "suite.toml"), "--run", str(tmp_path / "run"), "--no-report"]
    )
    assert first == (code, capfd.readouterr().out)


def test_a_sound_model_is_not_accused(run):
    """Whatever its images mean: they differ, and have shades."""
    code, out, folder = run()
    assert 0 == code
    assert "BROKEN" not in out
    assert not any(record.broken_images for record in folder.records())


def test_a_suite_may_say_what_counts_as_saturated(run):
    """Two-coloured images are somebody's data; the suite says so, and the plan has one control."""
    decode = "(images > 127).to(torch.uint8) * 255"
    assert "are black and white points: 100.0% of all values" in run(decode=decode)[1]
    code, out, _ = run("other", decode=decode, more=', {name = "sanity", saturated = 2.0}')
    assert (0, False) == (code, "BROKEN" in out)


def test_the_report_says_it_first(run):
    """The verdict begins with it, and ranks nothing against broken images."""
    pytest.importorskip("tfq_bench_reports")
    from tfq_bench_reports.view.reader import read_run
    from tfq_bench_reports.view.verdict import verdict

    _, _, folder = run(decode="images * 0")
    first, *rest = verdict(read_run(folder))
    assert ("trouble", "Broken images in 2 cells") == (first.kind, first.title)
    assert "are black (all 4)" in first.text
    assert all(point.kind in ("trouble", "caution") for point in rest)


def drawn(seed, n=16, size=16):
    """Images of smooth random blobs, uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 236, (n, 4, 4, 3))
    return coarse.repeat(size // 4, 1).repeat(size // 4, 2).astype(np.uint8)


def test_kinds_of_images():
    """Each control fires at its own fault, and at half of the images, not at one."""
    good = drawn(0)
    assert "" == fault(good)
    few, half = good.copy(), good.copy()
    few[:7], half[:8] = 0, 0
    assert "" == fault(few)
    assert "are black (8 of 16)" == fault(half)
    plain = np.broadcast_to(good[:, :1, :1], good.shape)
    assert "are one plain colour each (all 16)" == fault(plain)
    flicker = good.astype(int)
    flicker[::2] = 100
    flicker[::2, 0, 0] += 1
    assert "are one plain colour each (8 of 16)" == fault(flicker.astype(np.uint8))
    alike = np.broadcast_to(good[:1], good.shape).copy()
    alike[3, 0, 0, 0] += 1
    assert "are all alike (all 16), whatever their noise" == fault(alike)
    dark = (good // 8).astype(np.uint8)  # a night scene is a scene
    assert "" == fault(dark)


def test_variation_across_images_is_numpys():
    """Blocks change nothing: the variance is that of all images at once."""
    from tfq_bench.metrics import sanity

    images = (100 + np.random.default_rng(1).normal(0, 0.5, (600, 4, 4, 3))).round()
    images[:, :2] += 90
    images = images.astype(np.uint8)
    alike = float(images.astype(np.float64).var(axis=0).mean()) < sanity.ALIKE**2
    assert alike == ("alike" in fault(images))
    wider = images.copy()
    wider[::2] += 2
    assert float(wider.astype(np.float64).var(axis=0).mean()) > sanity.ALIKE**2
    assert "" == fault(wider)


@pytest.mark.parametrize(("steps", "first"), [(5, 800), (10, 900), (20, 950), (50, 980)])
def test_the_limit_of_saturation_has_a_reason(steps, first):
    """What a network that predicts nothing leaves of DDIM's noise lies beyond it.

    x_T / sqrt(alphabar_T) saturates where |x_T| is above sqrt(alphabar_T), by the normal law.
    """
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[first]
    assert 2 * norm.sf(np.sqrt(kept)) > SATURATED
    mnist = 1 - 0.1912  # share of zeros: 19.12 % of its pixels are not 0
    assert mnist < SATURATED
