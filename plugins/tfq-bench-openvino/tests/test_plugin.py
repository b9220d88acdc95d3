"""The entry point: light, and pointing at something that exists."""

from __future__ import annotations

import importlib
import subprocess
import sys

from tfq_bench_openvino.plugin import tfq_backends


def test_entry_point_imports_neither_torch_nor_openvino():
    """Listing plugins must stay cheap."""
    code = (
        "import sys, tfq_bench_openvino.plugin; print({'torch', 'openvino'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_provider_names_a_class_that_exists():
    """The factory text leads to the backend."""
    (provider,) = tfq_backends()
    module, _, name = provider.factory.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    assert ("openvino", "lowered", ("cpu",)) == (
        provider.name,
        provider.execution,
        provider.devices,
    )


def test_nobody_is_called():
    """OpenVINO reports its import from a thread that stays, unless its telemetry is not found."""
    code = (
        "import sys, threading, tfq_bench_openvino.backend; "
        "print('openvino_telemetry' in sys.modules, threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False 1"
