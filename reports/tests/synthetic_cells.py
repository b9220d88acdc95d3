"""Seven invented cells of round-to-nearest, one failed, one skipped: axes and numbers."""

from dataclasses import dataclass

import numpy as np

from tfq_bench.stats.intervals import median_interval, normal_interval
from tfq_bench.types import MeasuredBy, MetricDefinition, MetricValue

N = 64
STEPS = 10
TIMESTEPS = tuple(float(t) for t in 900 - 100 * np.arange(STEPS))
MACS = 10_000_000


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
        others = {"eager": "full-precision", "simulate": "simulated", "external": "external"}
        return others.get(self.backend, "lowered")

    @property
    def axes(self):
        full = self.execution == "full-precision"
        return {
            "model": self.model,
            "quantizer": "fp" if full else self.quantizer,
            "scheme": "FP" if full else f"W{self.wbits}A8",
            "wbits": str(self.wbits),
            "abits": "32" if full else "8",
            "policy": "own" if self.execution == "external" else "uniform",
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
        if spec.execution in ("lowered", "external"):
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
