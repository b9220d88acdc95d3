"""Stands in for SDNQ in tests, which is under the GPL and not installed for them.

It has the one function that is called, quantizes linear layers, and shares no code with it. The
environment variable STAND_IN makes it break.
"""

import os
import sys

import torch
from torch import nn

sys.stdout.write("a tool may print")  # on standard output, where answers go


class IntLinear(nn.Module):
    """A linear layer with int8 codes, and inputs quantized by rows or not at all."""

    def __init__(self, layer, products):
        super().__init__()
        scale = layer.weight.abs().amax(1) / 127
        self.codes = nn.Parameter((layer.weight / scale[:, None]).round().char(), False)
        self.scale, self.bias, self.products = nn.Parameter(scale, False), layer.bias, products

    def forward(self, x):
        if os.environ.get("STAND_IN") == "die":
            os._exit(7)
        rows = x.reshape(-1, x.shape[-1])
        if not self.products:
            out = rows @ (self.codes * self.scale[:, None]).t()
        else:
            step = rows.abs().amax(1, keepdim=True) / 127
            sums = torch._int_mm((rows / step).round().char(), self.codes.t())
            out = sums * step * self.scale
        return (out + self.bias).reshape(*x.shape[:-1], -1)


def sdnq_post_load_quant(model, *, use_quantized_matmul, minimum_allowed_numel, **others):
    """The model with its linear layers swapped."""
    if os.environ.get("STAND_IN") == "refuse":
        raise RuntimeError("this model is not supported")
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and module.weight.numel() >= minimum_allowed_numel:
            model.set_submodule(name, IntLinear(module, use_quantized_matmul))
    return model
