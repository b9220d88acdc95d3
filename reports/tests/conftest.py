"""A synthetic run: seven cells of round-to-nearest, one failed, one skipped, small images."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from tfq_bench.keys import definition_id
from tfq_bench.stats.intervals import median_interval, normal_interval
from tfq_bench.store import records
from tfq_bench.store.run import RunFolder
from tfq_bench.testing.plugin_host import plugin_host
from tfq_bench.types import MeasuredBy, MetricDefinition, MetricValue, Record
from tfq_bench_reports.renderer import HtmlRenderer

__all__ = ["plugin_host"]

N = 64
STEPS = 10
TIMESTEPS = tuple(float(t) for t in 900 - 100 * np.arange(STEPS))
MACS = 10_000_000
ENVIRONMENT = {
    "schema": 1,
    "host": "0.1.0",
    "python": "3.11.2",
    "platform": "Linux-6.1-x86_64",
    "hardware": {
        "cpu": "Example CPU at 2.1 GHz",
        "cores": 4,
        "usable_cores": 2,
        "instruction_sets": ["avx2", "avx512_vnni"],
        "memory_bytes": 16 * 2**30,
        "gpus": [],
    },
    "versions": {"torch": "2.14.1", "numpy": "2.3.0"},
    "plugins": [{"name": "cpu", "distribution": "tfq-bench-cpu", "version": "0.1.0"}],
    "threads": {"torch": 2},
}
SUITE = 'schema = 1\n\n[suite]\nname = "synthetic"\n# api_key = "hunter2"\n'


@dataclass(frozen=True)
class Spec:
    """What to invent for one cell.

    `noise` is the spread of its images around full precision; `draw` picks its invented numbers,
    so that cells of one draw have equal ones. Without it every cell has its own.
    """

    key: str
    wbits: int
    backend: str
    noise: float = 0.0
    status: str = "ok"
    reason: str | None = None
    quantizer: str = "rtn"
    model: str = "cifar10"
    model_options: str = "{}"
    seed: str = "0"
    draw: int | None = None
    reference: str = "c0fp"

    @property
    def execution(self):
        return {"eager": "full-precision", "simulate": "simulated"}.get(self.backend, "lowered")

    @property
    def axes(self):
        full = self.execution == "full-precision"
        return {
            "model": self.model,
            "quantizer": "fp" if full else self.quantizer,
            "scheme": "FP" if full else f"W{self.wbits}A8",
            "wbits": str(self.wbits),
            "abits": "32" if full else "8",
            "policy": "uniform",
            "backend": self.backend,
            "seed": self.seed,
            "model_options": self.model_options,
            "quantizer_options": "{}",
            "backend_options": "{}",
        }

    @property
    def label(self):
        axes = self.axes
        return f"{self.model} / {axes['quantizer']} {axes['scheme']} / {self.backend}"


CELLS = (
    Spec("c0fp", 32, "eager"),
    Spec("c1sim8", 8, "simulate", 2.0),
    Spec("c2cpu8", 8, "cpu", 2.0),
    Spec("c3sim6", 6, "simulate", 6.0),
    Spec("c4cpu6", 6, "cpu", 6.2),
    Spec("c5sim4", 4, "simulate", 22.0),
    Spec("c6cpu4", 4, "cpu", status="failed", reason="layer 'mid.conv' has no kernel"),
    Spec("c7cuda8", 8, "cuda", status="skipped", reason="backend 'cuda' needs a GPU, found none"),
)


BLOCKS = ("down.9", "down.10", "mid", "up.0")
"""In execution order, which is not that of their names."""


def metric(
    name, value, *, unit="", direction="lower", n=1, volatile=False, parameters=None, **given
):
    """A metric value of an invented definition."""
    definition = MetricDefinition(
        name=name,
        unit=unit,
        direction=direction,
        summary=f"Summary of {name}.",
        parameters={"formula": 1, "n": n, **(parameters or {})},
        volatile=volatile,
        measured_by=MeasuredBy(metric="synthetic:numbers", options={"scale": 2.0}),
    )
    return MetricValue(definition=definition, value=float(value), n=n, **given)


def sampled(name, value, spread, seed, *, shared=None, reference=None, **given):
    """A metric over images, with replicates that share noise with other cells."""
    rng = np.random.default_rng(seed)
    shared = np.zeros(50) if shared is None else shared
    replicates = value + shared + rng.normal(0, spread, 50)
    return metric(
        name,
        value,
        n=N,
        interval=normal_interval(value, replicates),
        replicates=tuple(map(float, replicates)),
        pairing="synthetic",
        reference=reference,
        **given,
    )


def temporal(error, reference):
    """Error, distance and mismatch of four blocks: the mean over blocks is `error` `[STEPS]`."""
    weights = dict(zip(BLOCKS, (0.1, 0.4, 1.0, 2.5), strict=True))
    late = (np.arange(STEPS) >= 7).astype(float)
    curves = {
        "temporal-error": ("relative_error", error, {b: w * error for b, w in weights.items()}),
        "temporal-cosine": (
            "one_minus_cosine",
            error**2,
            {b: w * error**2 for b, w in weights.items()},
        ),
        "temporal-mismatch": ("mismatch", late / 4, {b: late * (b == "mid") for b in weights}),
    }
    return [
        metric(
            name,
            mean.mean(),
            n=STEPS,
            reference=reference,
            parameters={"blocks": list(BLOCKS)},
            series={
                "timestep": TIMESTEPS,
                curve: tuple(map(float, mean)),
                # As the store keeps them: sorted by name.
                **{f"block:{b}": tuple(map(float, blocks[b])) for b in sorted(blocks)},
            },
        )
        for name, (curve, mean, blocks) in curves.items()
    ]


def values_of(spec, number):
    """Every metric of a cell: quality, distance, curves per step, size, kernels, speed."""
    common = np.random.default_rng(5).normal(0, 4.0, 50)
    quality = 150 + spec.noise**1.5 / 3
    found = [
        sampled("fd-efficientnet-lite0", quality, 0.6, number, shared=common),
        sampled("precision-efficientnet-lite0", 0.61, 0.01, number + 50, direction="higher"),
        metric("mean-weight-bits", spec.wbits, unit="bits"),
        metric("size-bytes", 26_211_328 * (spec.wbits + 0.3) / 32.3, unit="bytes"),
    ]
    if spec.execution != "full-precision":
        psnr = 20 * np.log10(255 / spec.noise)
        steps = np.arange(STEPS)
        error = spec.noise * 1e-3 * (1 + steps)
        found += [
            sampled(
                "psnr", psnr, 0.3, number, unit="dB", direction="higher", reference=spec.reference
            ),
            *temporal(error, spec.reference),
            sampled(
                "trajectory-divergence",
                error.sum(),
                0.002,
                number + 90,
                reference=spec.reference,
                series={
                    "timestep": TIMESTEPS,
                    "trajectory_divergence": tuple(map(float, np.cumsum(error))),
                    "prediction_divergence": tuple(map(float, 2 * error)),
                },
            ),
            metric("calibration-seconds", 1.5 + number, unit="s", volatile=True),
            metric("calibration-peak-bytes", (80 + number) * 1e6, unit="bytes", volatile=True),
            metric("calibration-network-calls", 20, volatile=True),
        ]
    if spec.execution == "lowered":
        found.append(metric("mac-share-low-bit", 0.9, direction="higher"))
    if spec.execution != "simulated":
        base = 84.0 if spec.execution == "full-precision" else 31.0 + number
        rounds = [base + 0.4 * ((7 * i) % 9) for i in range(9)]
        ratios = [84.0 / ms for ms in rounds]
        timed = [("latency-ms", "ms", "lower", rounds)]
        if spec.execution == "lowered":
            timed.append(("speedup-vs-fp32-eager", "x", "higher", ratios))
        found += [
            metric(
                name,
                np.median(samples),
                unit=unit,
                direction=direction,
                n=9,
                volatile=True,
                interval=median_interval(samples),
            )
            for name, unit, direction, samples in timed
        ]
    return found


def kernel_facts(spec):
    """The lower stage's result of a lowered cell: ten layers, one of which falls back."""
    uses = [
        {
            "layer": f"layer{i}",
            "kernel": "onednn.qconv2d u8s8",
            "wbits": spec.wbits,
            "abits": 8,
            "macs": MACS,
            "fallback": None,
        }
        for i in range(9)
    ]
    uses.append(
        {
            "layer": "out.conv",
            "kernel": "fp32 on dequantized integers",
            "wbits": 8,
            "abits": 8,
            "macs": MACS // 10,
            "fallback": "groups are not supported",
        }
    )
    return {
        "execution": "lowered",
        "kernels": uses,
        "executed": {"onednn.qconv2d u8s8": 9},
        "parity": {"max_abs": 1e-4, "rms": 1e-5, "relative": 1e-5},
    }


def images_of(spec, side):
    """uint8 `[N, side, side, 3]`: smooth colours, the same for all cells but for their noise."""
    y, x = np.mgrid[0:side, 0:side] / side
    base = np.stack(
        [
            np.stack([x, y, 0.5 + 0.5 * np.sin(6 * x * (1 + i % 5) + i)], axis=-1) * 255
            for i in range(N)
        ]
    )
    noise = np.random.default_rng(1).normal(0, 1, base.shape)
    scale = np.linspace(0.3, 1.7, N).reshape(-1, 1, 1, 1)
    return np.clip(base + spec.noise * scale * noise, 0, 255).astype(np.uint8)


def write_run(folder, cells=CELLS, *, side=32):
    """A run folder at `folder` with everything a report reads; returns it."""
    plan = {
        "schema": 2,
        "id": "0123456789abcdef",
        "suite": {"name": "synthetic", "summary": "Invented numbers for tests"},
        "sampling": {"sampler": "ddim", "steps": STEPS, "images": N, "seed": 0},
        "calibration": {"images": 16},
        "timing": {"batch": 8, "rounds": 9, "warmup": 2},
        "shards": [[0, N]],
        "cells": [
            {
                "key": spec.key,
                "label": spec.label,
                "axes": spec.axes,
                "status": "skipped" if spec.status == "skipped" else "planned",
                "reason": spec.reason if spec.status == "skipped" else None,
                "execution": spec.execution,
                "reference": None if spec.execution == "full-precision" else spec.reference,
                "plugins": [],
                "keys": {
                    "calibrate": None,
                    "quantize": f"q{spec.key}",
                    "lower": f"l{spec.key}",
                    "sample": [f"s{spec.key}"],
                    "measure": None,
                    "evaluate": [f"e{spec.key}"],
                },
            }
            for spec in cells
        ],
    }
    run = RunFolder.prepare(folder)
    run.write(SUITE, plan)
    environment = run.add_environment(ENVIRONMENT)
    for number, spec in enumerate(cells):
        shared = {
            "run": plan["id"],
            "cell": spec.key,
            "label": spec.label,
            "axes": spec.axes,
            "execution": spec.execution,
            "environment": environment,
            "plugins": ("tfq-bench==0.1.0", "tfq-bench-cpu==0.1.0"),
        }
        if spec.status == "ok":
            values = values_of(spec, number if spec.draw is None else spec.draw)
            records.append(
                run.records_path,
                [
                    Record(
                        **shared,
                        status="ok",
                        metric=value,
                        source=f"e{spec.key}",
                        source_values=len(values),
                        definition=definition_id(value.definition),
                    )
                    for value in values
                ],
            )
            with run.artefacts.create("sample", f"s{spec.key}") as path:
                pixels = images_of(spec, side)
                save_file({"images": pixels, "index": np.arange(N)}, path / "images.safetensors")
            if spec.execution == "lowered":
                with run.artefacts.create("lower", f"l{spec.key}") as path:
                    (path / "result.json").write_text(json.dumps(kernel_facts(spec)))
        else:
            failed = spec.status == "failed"
            records.append(
                run.records_path,
                [
                    Record(
                        **shared,
                        status=spec.status,
                        stage="lower" if failed else None,
                        reason=spec.reason,
                        reproduce=f"tfq-bench cell plan.json {spec.key}" if failed else None,
                    )
                ],
            )
            if failed:
                run.log_path(spec.key).parent.mkdir(exist_ok=True)
                run.log_path(spec.key).write_text(
                    "INFO lower\nHF_TOKEN=hf_secretvalue\nlast line\n"
                )
    return run


@pytest.fixture(scope="session")
def synthetic():
    """The generator of synthetic runs: `write_run`, `Spec`, `CELLS`, `metric`."""
    return SimpleNamespace(
        write_run=write_run, Spec=Spec, CELLS=CELLS, metric=metric, sampled=sampled
    )


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The synthetic run."""
    return write_run(tmp_path_factory.mktemp("run") / "synthetic")


@pytest.fixture(scope="session")
def html(run, tmp_path_factory):
    """The text of its report."""
    target = tmp_path_factory.mktemp("report") / "report.html"
    HtmlRenderer().render([run.path], target)
    return target.read_text("utf-8")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Hostile text that was logged or printed does not stop pytest-xdist, which sends UTF-8."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report
