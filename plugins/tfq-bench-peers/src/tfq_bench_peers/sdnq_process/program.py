"""The program of the other process: quantizes a network with SDNQ, and answers its calls.

    python program.py          messages on standard input, answers on standard output

It needs the packages sdnq, torch and safetensors, and that which has the classes of the network. It
ends when its input ends. What it is asked:

    quantize   a network; writes the tensors of the quantized one into a folder
    load       a network; quantizes it the same way, and fills it with the stored tensors
    look       a call; answers what each quantized layer multiplied in it
    call       a call; answers the tensors that the network returns, and the milliseconds it took
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from portable import unpack
from products import products_of
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from wire import receive, send

FILE = "network.safetensors"


def main() -> None:
    """Answers until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever is printed is no answer
    asked = sys.stdin.buffer
    program = Program()
    while True:
        try:
            message, tensors = receive(asked)
        except EOFError:
            return
        try:
            answer, found = program.answer(message, tensors)
        except Exception as error:  # whatever it is, the other side says it
            answer, found = {"error": f"{type(error).__name__}: {error}"}, []
        send(answers, answer, found)


class Program:
    """One quantized network."""

    def __init__(self) -> None:
        self._network = nn.Module()
        self._layers: list[str] = []
        self._device = "cpu"

    def answer(
        self, message: dict[str, Any], tensors: list[Tensor]
    ) -> tuple[dict[str, Any], list[Tensor]]:
        """What is answered to a message."""
        do = message["do"]
        if do in ("quantize", "load"):
            return self._prepare(message, tensors), []
        args, kwargs = pytree.tree_map_only(
            Tensor, lambda tensor: tensor.to(self._device), unpack(tensors)
        )
        if do == "look":
            seen = products_of(self._network, self._layers, lambda: self._network(*args, **kwargs))
            return {"layers": self._layers, "products": seen}, []
        with torch.no_grad():
            before = time.perf_counter()
            out = self._network(*args, **kwargs)
            found = [leaf.cpu() for leaf in pytree.tree_leaves(out) if isinstance(leaf, Tensor)]
            took = (time.perf_counter() - before) * 1e3
        return {"ms": took}, found

    def _prepare(self, message: dict[str, Any], tensors: list[Tensor]) -> dict[str, Any]:
        _limit(int(message["threads"]))
        self._device = message["device"]
        network = unpack(tensors).to(self._device)
        before = {name: type(module) for name, module in network.named_modules()}
        from sdnq import sdnq_post_load_quant

        self._network = sdnq_post_load_quant(network, **message["settings"]).eval()
        self._layers = [
            name
            for name in message["layers"]
            if type(self._network.get_submodule(name)) is not before[name]
        ]
        held = {
            name: value
            for name, value in self._network.state_dict().items()
            if isinstance(value, Tensor)
        }
        path = Path(message["folder"]) / FILE
        if message["do"] == "quantize":
            save_file({name: value.detach().contiguous() for name, value in held.items()}, path)
        else:
            _fill(held, load_file(path))
        return {"layers": self._layers}


@torch.no_grad()
def _fill(held: dict[str, Tensor], stored: dict[str, Tensor]) -> None:
    for name in sorted(held.keys() | stored.keys()):
        here, there = held.get(name), stored.get(name)
        if here is None or there is None or here.shape != there.shape or here.dtype != there.dtype:
            raise ValueError(
                f"tensor '{name}' is stored otherwise than this version of sdnq has it"
            )
        here.copy_(there)


def _limit(threads: int) -> None:
    """Engines below SDNQ start as many threads as there are processors; torch is told how many."""
    torch.set_num_threads(threads)
    if hasattr(os, "sched_setaffinity"):
        there = sorted(os.sched_getaffinity(0))
        first = os.getpid() % len(there)  # that two such processes do not share one
        os.sched_setaffinity(0, [*there[first:], *there[:first]][:threads])


if __name__ == "__main__":
    main()
