"""A throw-away plugin for tests of the planner: one provider of each kind.

The option `fault` makes its code raise; `file` is a path. `odd` and `even` have one digest.
"""

import os

from tfq_bench import api

FILE = api.Option(name="file", kind="path", default="", help="A file.")
FAULT = api.Option(name="fault", kind="str", default="", help="What goes wrong.")


class Box:
    def __init__(self, *, fault, file):
        self.fault = fault

    def check(self, *, device):
        if self.fault == "lacks" or {"SMALL_LACKS"} & os.environ.keys():
            raise api.LoweringError("this processor has no box instructions.")
        if self.fault:
            raise ValueError(self.fault)


class Sampler:
    def __init__(self, definition):
        self.definition = definition


class Odd:
    digest = "0123"

    def __init__(self, *, fault, file):
        self.fault = fault
        if fault == "factory":
            raise RuntimeError("no factory")
        if fault == "digest":
            del type(self).digest

    def sampler(self, name, steps):
        if self.fault == "sampler":
            raise RuntimeError("no sampler")
        if self.fault == "exit":
            raise SystemExit("bye")
        if self.fault == "steps":
            raise api.SuiteError("too many steps.")
        return Sampler({"sampler": object() if self.fault == "definition" else name})


class Score:
    def __init__(self, *, file, fault):
        if fault:
            raise api.AssetError("its weights are missing.")


@api.hookimpl
def tfq_models():
    """Two models that differ in name only."""
    for name in ("odd", "even"):
        yield api.ModelProvider(
            name=name, summary="", factory=f"{__name__}:Odd", options=(FAULT, FILE)
        )


@api.hookimpl
def tfq_backends():
    """A backend for 4 and 8 bits on the CPU."""
    yield api.BackendProvider(
        name="box",
        summary="",
        factory=f"{__name__}:Box",
        options=(FAULT, FILE),
        wbits=(4, 8),
        abits=(8,),
        devices=("cpu",),
    )


@api.hookimpl
def tfq_quantizers():
    """A quantizer that is planned and never made."""
    yield api.QuantizerProvider(
        name="crude",
        summary="",
        factory=f"{__name__}:None_",
        options=(FILE,),
        wbits=(8, 6, 4),
        abits=(8, 32),
        policies=("uniform", "paper"),
    )


@api.hookimpl
def tfq_metrics():
    """A metric that may lack its files."""
    yield api.MetricProvider(
        name="score",
        summary="",
        factory=f"{__name__}:Score",
        options=(FAULT, FILE),
        timed=True,
    )
