"""What this package uses of OpenVINO, imported without its telemetry.

`import openvino` reports to a server that it was imported, from a thread that stays, wherever the
package `openvino_telemetry` can be imported; a benchmark calls nobody. All else imports from here.
"""

from __future__ import annotations

import sys
from typing import Any

_TELEMETRY = "openvino_telemetry"
_modules: dict[str, Any] = sys.modules
_held = _modules.get(_TELEMETRY)
_modules[_TELEMETRY] = None  # OpenVINO then takes the stub that it has for its absence
try:
    import openvino
    from openvino import Model, Node, Output, Type, opset13
    from openvino.frontend import ConversionExtension, FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
finally:
    if _held is None:
        del _modules[_TELEMETRY]
    else:
        _modules[_TELEMETRY] = _held

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
]
