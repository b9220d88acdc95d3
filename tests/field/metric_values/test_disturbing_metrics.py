"""A metric that changes networks, settings or images fails, and disturbs none that follows."""

import json
import math

import numpy as np
import pytest

from tfq_bench.cli import main
from tfq_bench.metrics.extractors import efficientnet_lite0
from tfq_bench.metrics.paired import feature_cosine
from tfq_bench.store.run import RunFolder

from .one_bad_metric import check_only_mine_failed, source


@pytest.fixture(scope="module")
def expected():
    """Numbers of a run without the metric, filled by the first test that asks."""
    return {}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("inputs.loaded.network.conv_in.weight.mul_(0.5)", "full-precision model was changed"),
        (
            "inputs.loaded.network.conv_in.weight.data.zero_(); raise ValueError('x')",
            "raised ValueError: x Before that, the full-precision model was changed",
        ),
        ("inputs.loaded.network.train()", "full-precision model was changed"),
        (
            "network = inputs.lowered().network\n"
            "        for t in (*network.parameters(), *network.buffers()): t.data.zero_()\n"
            "        raise ValueError('zeroed')",
            "raised ValueError: zeroed",
        ),
        ("torch.set_default_dtype(torch.float64); raise ValueError('x')", "x"),
        ("np.random.seed(0); torch.manual_seed(1); raise ValueError('x')", "x"),
    ],
)
def test_networks_and_settings_that_a_metric_leaves_changed(run, tmp_path, expected, body, reason):
    """Metrics after it give what they give without it."""
    metrics = ("mine", "paired", "bits", "temporal", "trajectory")

    def numbers(records):
        return {
            (r.label, r.metric.definition.name): (r.metric.value, r.metric.replicates)
            for r in records
            if r.metric is not None and not r.metric.definition.volatile
        }

    text = source(body=body)
    code, out, records = run(text, metrics=metrics)
    check_only_mine_failed(code, out, records, reason)
    if not expected:
        folder = tmp_path / "without"
        suite = (tmp_path / "tiny.toml").read_text().replace('[[metric]]\nname = "mine"\n', "")
        (tmp_path / "without.toml").write_text(suite)
        without = ["run", str(tmp_path / "without.toml"), "--run", str(folder), "--no-report"]
        assert 0 == main(without)
        expected.update(numbers(RunFolder(folder).records()))
    assert expected == numbers(records)
    assert "trajectory-divergence" in {name for _, name in expected}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("inputs.images[:] = 0", "read-only"),
        ("inputs.images.flags.writeable = True; inputs.images[:] = 0", "it wrote into the images"),
        ("torch.from_numpy(inputs.images).zero_()", "it wrote into the images of the cell"),
        (
            "torch.from_numpy(inputs.reference_images if inputs.reference_cell else inputs.images)"
            ".fill_(9)",
            "it wrote into the images of the ",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_images_that_a_metric_writes_into(run, tmp_path, body, reason):
    """The metrics after it see what was sampled: their numbers are those of a run without it."""
    text = source(body=body)
    code, out, records = run(text)
    check_only_mine_failed(code, out, records, reason)
    images = {
        r.cell: [r.metric.value] for r in records if r.metric and r.metric.definition.name == "psnr"
    }
    (cell,) = images
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    keys = {c["key"]: c["keys"]["sample"] for c in plan["cells"]}
    (full,) = keys.keys() - {cell}
    assert images[cell] == [pytest.approx(_psnr(tmp_path, keys[cell], keys[full]), abs=1e-9)]


def _psnr(tmp_path, mine, other):
    """Mean PSNR from the stored images, by its definition in float64."""
    from safetensors.numpy import load_file

    def images(keys):
        folder = tmp_path / "run" / "artefacts" / "sample"
        return np.concatenate(
            [
                load_file(next(folder.glob(f"{key}*")) / "images.safetensors")["images"]
                for key in keys
            ]
        ).astype(np.float64)

    errors = ((images(mine) - images(other)) ** 2).mean(axis=(1, 2, 3))
    return float(
        np.mean([100.0 if e == 0 else min(100.0, 10 * math.log10(255**2 / e)) for e in errors])
    )


def test_features_of_images_that_a_metric_writes_into_are_not_kept(run, tmp_path):
    """They are shared: the next metric would get features of what was never sampled."""
    body = (
        "from tfq_bench.metrics.extractors import efficientnet_lite0\n"
        "        from tfq_bench.metrics.features import cell_features\n"
        "        torch.from_numpy(inputs.images).zero_()\n"
        "        cell_features(inputs, efficientnet_lite0())"
    )
    text = source(body=body)
    code, out, records = run(text, steps=1, images=2)
    check_only_mine_failed(code, out, records, "it wrote into the images of the cell")
    (cosine,) = [r for r in records if r.metric and "feature-cosine" == r.metric.definition.name]
    network = efficientnet_lite0()
    folder = RunFolder(tmp_path / "run")
    own, other = (
        network.features(folder.images(cell), device="cpu")
        for cell in (cosine.cell, cosine.metric.reference)
    )
    assert cosine.metric.value == pytest.approx(feature_cosine(own, other).mean(), abs=1e-9)
    assert cosine.metric.value < 1.0
