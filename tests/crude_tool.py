"""A plugin for tests: a tool that rounds weights and calls the network by itself.

The option `fault` makes it break what a contestant must keep to.
"""

import copy

import torch
from safetensors.torch import load_file, save_file

from tfq_bench import api

FILE, KERNEL = "weights.safetensors", "crude float product"
FAULTS = ("", "missing", "nothing", "idle", "silent", "stranger", "nan", "shape", "global", "edit")


class CrudeTool:
    """Round to nearest of all weights, with one scale a layer."""

    packages = ("crude-engine==2.5", "crude-rounding==1.0")

    def __init__(self, *, scheme, fault=""):
        self.scheme, self.fault = scheme, fault

    def check(self, *, device):
        if self.fault == "missing":
            raise api.LoweringError(
                "it needs the package 'crude-engine', which is not installed: "
                "pip install 'crude-dist[engine]'."
            )

    def calibration_needs(self, loaded, *, images):
        return api.CalibrationNeeds(samples=((0, 0), (1, 1)))

    def quantize(self, loaded, data, *, generator, progress, folder):
        if self.fault == "edit":
            loaded.network.conv_in.weight.add_(1.0)
        if self.fault == "nothing":
            return
        largest = 2 ** (self.scheme.wbits - 1) - 1
        tensors = {}
        for layer in loaded.topology.layers:
            weight = loaded.network.get_submodule(layer.name).weight
            scale = weight.abs().max() / largest
            tensors[f"{layer.name}.codes"] = (weight / scale).round().to(torch.int8)
            tensors[f"{layer.name}.scale"] = scale.reshape(1)
        save_file(tensors, folder / FILE)

    def load(self, loaded, folder):
        network, executed = copy.deepcopy(loaded.network), {}
        tensors = load_file(folder / FILE)
        for layer in loaded.topology.layers if self.fault != "idle" else ():
            module = network.get_submodule(layer.name)
            weight = tensors[f"{layer.name}.codes"] * tensors[f"{layer.name}.scale"]
            module.weight = torch.nn.Parameter(weight, requires_grad=False)
        last = network.conv_out
        if self.fault == "nan":
            last.bias = torch.nn.Parameter(last.bias * float("nan"), requires_grad=False)
        elif self.fault == "shape":
            last.register_forward_hook(lambda module, given, out: out[:, :1])
        elif self.fault == "global":
            torch.rand(1)
        count = executed if self.fault != "silent" else {}
        names = [layer.name for layer in loaded.topology.layers]
        if self.fault == "stranger":
            names[0] = "somewhere"
        for layer in loaded.topology.layers:
            network.get_submodule(layer.name).register_forward_hook(_counter(count))
        return api.Lowered(
            network=network,
            step=api.StepCursor(loaded.device),
            execution="external",
            executed=executed,
            kernels=tuple(
                api.KernelUse(
                    layer=name,
                    kernel=KERNEL,
                    wbits=self.scheme.wbits,
                    abits=self.scheme.abits,
                    macs=layer.macs,
                )
                for name, layer in zip(names, loaded.topology.layers, strict=True)
            ),
            details={"settings": {"rounding": "nearest"}, "remarks": ["It is crude."]},
        )


def _counter(executed):
    def count(module, given, out):
        executed[KERNEL] = executed.get(KERNEL, 0) + 1

    return count


@api.hookimpl
def tfq_quantizers():
    """The contestant `crude-tool`."""
    yield api.QuantizerProvider(
        name="crude-tool",
        summary="",
        factory=f"{__name__}:CrudeTool",
        wbits=(8, 4),
        abits=(32,),
        policies=("own",),
        external=True,
        options=(api.Option(name="fault", kind="str", default="", choices=FAULTS, help="Fault."),),
    )
