"""The run folder of invented cells, with small images and everything that a report reads."""

import json

import numpy as np
from safetensors.numpy import save_file

from tfq_bench.keys import definition_id
from tfq_bench.store import records
from tfq_bench.store.run import RunFolder
from tfq_bench.types import Record

from .synthetic_cells import CELLS, MACS, STEPS, N, values_of

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
        "execution": spec.execution,
        "kernels": uses,
        "executed": {"onednn.qconv2d u8s8": 9},
        "parity": {"max_abs": 1e-4, "rms": 1e-5, "relative": 1e-5},
        "external": {"macs": 20 * MACS} if spec.execution == "external" else None,
        "details": {"settings": {"subset": 16}, "remarks": ["Weights <have> 7 bits."]},
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
            if spec.execution in ("lowered", "external"):
                with run.artefacts.create("lower", f"l{spec.key}") as path:
                    (path / "result.json").write_text(json.dumps(kernel_facts(spec)))
            if spec.execution == "external":
                with run.artefacts.create("quantize", f"q{spec.key}") as path:
                    tools = ["engine==2026.4", "compressor==3.4"]
                    (path / "result.json").write_text(json.dumps({"tools": tools}))
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
