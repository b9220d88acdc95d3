"""What PTQD's correction does to the error of predictions, on images that it was not fitted on.

    python benchmarks/ptqd_error.py --images 16 --steps 6

The embedded CIFAR-10 model, round-to-nearest at W4A8. Error: mean square difference from full
precision over the mean square of full precision, at full precision's states. PSNR: of finished
images of both networks from the same noise, mean over images.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch

from tfq_bench.api import LoadedModel, Scheme
from tfq_bench.pipeline.calibrate import capture
from tfq_bench.pipeline.sample import draw
from tfq_bench.quant import RoundToNearest, simulate
from tfq_bench.quant.sampling import SampledBatch
from tfq_bench.seeds import generator
from tfq_bench_cifar10.model import unconditional
from tfq_bench_ptqd.quantizer import Ptqd

VARIANTS = {
    "ptqd": {},
    "ptqd, negative slopes": {"negative_slopes": True},
}


def silent(done, text):
    """Progress that nobody looks at."""


class Once:
    """A quantizer whose state is made once."""

    def __init__(self, method):
        self.method, self.state = method, None

    def calibration_needs(self, loaded, *, images):
        """As the method's."""
        return self.method.calibration_needs(loaded, images=images)

    def quantize(self, *given, **named):
        """The state of the first call."""
        self.state = self.state or self.method.quantize(*given, **named)
        return self.state


@torch.no_grad()
def errors(loaded, lowered, corrections, images):
    """`{variant: [error of each step]}` at full precision's states."""
    batch = SampledBatch(loaded, range(images), seed=0, purpose="sampling")
    found = {name: [] for name in corrections}
    for step in range(len(loaded.sampler.timesteps)):
        lowered.step.set(step)
        x = batch.network_input()
        exact, plain = batch.predict(loaded.network, x), batch.predict(lowered.network, x)
        for name, correction in corrections.items():
            mine = plain if correction is None else correction.corrected(plain, step)
            error = (mine - exact).double().square().mean() / exact.double().square().mean()
            found[name].append(float(error))
        batch.advance(exact)
    return found


def psnr(loaded, lowered, full, images):
    """Decibels, mean over images."""
    mine = draw(loaded, lowered, range(images), seed=0, batch=images, progress=silent)
    square = (mine.double() - full.double()).square().flatten(1).mean(dim=1)
    return float((10 * torch.log10(255.0**2 / square)).mean())


def main():
    """Prints a line for each policy and variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=16, help="fitted on, and as many others")
    parser.add_argument("--steps", type=int, default=6, help="of DDIM")
    parser.add_argument("--policies", nargs="+", default=["uniform", "uniform-io16"])
    args = parser.parse_args()
    model = unconditional()
    network = model.load(device="cpu", dtype=torch.float32)
    loaded = LoadedModel(
        model=model,
        network=network,
        topology=model.topology(network),
        sampler=model.sampler("ddim", args.steps),
        device="cpu",
    )
    full = draw(
        loaded, simulate(loaded, None), range(args.images), seed=0, batch=16, progress=silent
    )
    print(f"error at timesteps {', '.join(map(str, loaded.sampler.timesteps))}; PSNR, dB")
    for policy in args.policies:
        scheme = Scheme(wbits=4, abits=8, policy=policy)
        base = Once(RoundToNearest(scheme=scheme))
        corrections, data = {"rtn": None}, None
        for name, options in VARIANTS.items():
            method = Ptqd(scheme=scheme, base=base, correction_images=args.images, **options)
            needs = method.calibration_needs(loaded, images=args.images)
            data = data or capture(loaded, needs, seed=1, batch=16, progress=silent)
            state = method.quantize(
                loaded, data, generator=generator(0, "quantize"), progress=silent
            )
            corrections[name] = state.correction
            slopes = " ".join(f"{slope:+.4f}" for slope in state.correction.slope.tolist())
            print(f"{policy}: {name}: slopes {slopes}", flush=True)
        lowered = simulate(loaded, base.state)
        for name, found in errors(loaded, lowered, corrections, args.images).items():
            decibels = psnr(
                loaded, replace(lowered, correction=corrections[name]), full, args.images
            )
            steps = " ".join(f"{error:.3g}" for error in found)
            print(f"{policy}: {name}: {steps}; {decibels:.2f}", flush=True)


if __name__ == "__main__":
    main()
