"""What this package uses of OpenVINO, imported without its telemetry.

`import openvino` reports to a server that it was imported, from a thread that stays, wherever the
package `openvino_telemetry` can be imported; a benchmark calls nobody. All else imports from here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def without_telemetry() -> Iterator[None]:
    """What is imported inside takes the stub that it has for the absence of the package."""
    name, modules = "openvino_telemetry", sys.modules
    missing = object()
    held: Any = modules.get(name, missing)
    modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if held is missing:
            del modules[name]
        else:
            modules[name] = held


with without_telemetry():
    import openvino
    from openvino import Model, Node, Output, Type, opset13
    from openvino.frontend import ConversionExtension, FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

__all__ = [
    "ConversionExtension",
    "FrontEndManager",
    "Model",
    "Node",
    "Output",
    "TorchScriptPythonDecoder",
    "Type",
    "openvino",
    "opset13",
    "without_telemetry",
]
