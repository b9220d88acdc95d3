"""What quantizing SDXL takes on a CPU: time, peak memory, size on disk, one forward pass.

    python benchmarks/sdxl_memory.py --threads 2 --wbits 8 4

The U-Net has its real architecture at 1024x1024 and random weights in bfloat16. Each width runs in
a process of its own, because peak memory is the process's. Weights of the text encoders and of the
decoder are not loaded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GIB = 2**30


def main() -> int:
    """Prints a table; one line per width."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--wbits", type=int, nargs="+", default=[8, 4])
    parser.add_argument("--model", default="sdxl", help="another preset, for a quick look")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        print(json.dumps(_measure(args.model, args.one, args.threads)))
        return 0
    print(f"{args.model}, random weights in bfloat16, {args.threads} threads")
    print(
        "scheme  weights  peak quantizing  of weights  state on disk  quantize  "
        "lower  peak lowered  forward: bf16   int8  error"
    )
    for wbits in args.wbits:
        command = [sys.executable, __file__, "--one", str(wbits)]
        command += ["--threads", str(args.threads), "--model", args.model]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        weights, peak = found["weights"], found["peak_quantize"]
        columns = (
            f"W{wbits}A8    {weights / GIB:4.2f} GiB",
            f"{peak / GIB:11.2f} GiB",
            f"{peak / weights:9.2f}x",
            f"{found['disk'] / GIB:9.2f} GiB",
            f"{found['quantize_s']:6.0f} s",
            f"{found['lower_s']:3.0f} s",
            f"{found['peak_lowered'] / GIB:8.2f} GiB",
            f"{found['reference_s']:11.1f} s",
            f"{found['forward_s']:4.1f} s  {found['error']:.3f}",
        )
        print("  ".join(columns))
    return 0


def _measure(name: str, wbits: int, threads: int) -> dict[str, float]:
    import torch

    from tfq_bench import api
    from tfq_bench.pipeline.calibrate import capture
    from tfq_bench.pipeline.memory import return_freed_memory
    from tfq_bench.quant import RoundToNearest
    from tfq_bench.quant.state.storage import load_state, save_state
    from tfq_bench.seeds import generator
    from tfq_bench_cpu.backend import CpuBackend
    from tfq_bench_diffusers.model import DiffusersModel

    torch.set_num_threads(threads)
    model = DiffusersModel(preset=name, weights="random", dtype="bfloat16")
    network = model.load(device="cpu", dtype=model.dtype)
    return_freed_memory(network)
    loaded = api.LoadedModel(
        model=model,
        network=network,
        topology=model.topology(network),
        sampler=model.sampler("euler", 1),
        device="cpu",
    )
    found: dict[str, float] = {"weights": sum(one.nbytes for one in network.parameters())}
    method = RoundToNearest(scheme=api.Scheme(wbits=wbits, abits=8), calibration_steps=1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        data = capture(
            loaded,
            method.calibration_needs(loaded, images=1),
            seed=1,
            batch=1,
            progress=_silent,
        )
        state = method.quantize(
            loaded,
            data,
            generator=generator(0, "benchmark"),
            progress=_silent,
            checkpoint=Path(folder) / "checkpoint",
        )
        save_state(state, Path(folder) / "state")
        found["quantize_s"] = time.perf_counter() - start
        found["peak_quantize"] = _peak()
        files = (Path(folder) / "state").iterdir()
        found["disk"] = sum(file.stat().st_size for file in files)
        start = time.perf_counter()
        lowered = CpuBackend().lower(loaded, load_state(Path(folder) / "state"))
        found["lower_s"] = time.perf_counter() - start
    fallbacks = [use.layer for use in lowered.kernels if use.fallback is not None]
    assert not fallbacks, fallbacks
    x, t = data.x[:1], data.timestep[:1]
    condition = {key: value[:1] for key, value in data.condition.items()}
    outputs = []
    for key, one in (("reference_s", network), ("forward_s", lowered.network)):
        with torch.no_grad():
            model.predict(one, x, t, condition)  # packs and compiles what is left to be
            start = time.perf_counter()
            outputs.append(model.predict(one, x, t, condition))
        found[key] = time.perf_counter() - start
    found["error"] = float((outputs[1] - outputs[0]).norm() / outputs[0].norm())
    found["peak_lowered"] = _peak()
    return found


def _silent(share: float, text: str) -> None:
    """Progress that nobody reads."""


def _peak() -> int:
    """Highest resident memory of this process so far, in bytes; Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    raise SystemExit(main())
