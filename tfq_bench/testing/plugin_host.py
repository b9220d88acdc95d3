"""The fixture `plugin_host`: throw-away plugins, and none of those that are installed.

Example::

    def test_my_quantizer_is_offered(plugin_host):
        plugin_host.install("mine", "my_package.plugin", distribution="my-dist")
        assert "mine" in plugin_host.discover().names("quantizer")
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tfq_bench.host import plugins
from tfq_bench.host.discovery import child, installed, kept, trial
from tfq_bench.host.table import PluginTable

__all__ = ["PluginHost", "plugin_host"]


class PluginHost:
    """Installs plugins into a folder of their own and discovers nothing else.

    Args:
        folder: empty, on `sys.path` and in PYTHONPATH, so that child processes see them too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written: list[str] = []

    def install(
        self,
        name: str,
        module_or_source: str | ModuleType,
        distribution: str = "dist",
        version: str = "1.0",
    ) -> str:
        """The name of the module that entry point `name` of `distribution` now refers to.

        Args:
            module_or_source: a module, its dotted name, or source text that is written to a file.
        """
        module = self._module(name, module_or_source)
        info = self.folder / f"{re.sub(r'[-.]+', '_', distribution)}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n", "utf-8"
        )
        points = info / "entry_points.txt"
        before = (
            points.read_text("utf-8").splitlines() if points.exists() else [f"[{installed.GROUP}]"]
        )
        others = [line for line in before if not line.startswith(f"{name} = ")]
        points.write_text("\n".join([*others, f"{name} = {module}", ""]), "utf-8")
        importlib.invalidate_caches()
        return module

    def discover(self, **arguments: Any) -> PluginTable:
        """The host's own plugin and those installed here; takes what `plugins.discover` takes."""
        return plugins.discover(**arguments)

    def forget(self) -> None:
        """Drops the modules that were written here from `sys.modules`."""
        for name in self._written:
            sys.modules.pop(name, None)

    def _module(self, name: str, module_or_source: str | ModuleType) -> str:
        if isinstance(module_or_source, ModuleType):
            return module_or_source.__name__
        if all(part.isidentifier() for part in module_or_source.split(".")):
            return module_or_source
        module = f"throwaway_{len(self._written)}_{re.sub(r'[^a-zA-Z0-9]', '_', name)}"
        (self.folder / f"{module}.py").write_text(module_or_source, "utf-8")
        self._written.append(module)
        return module


def _tried_here(entries: Sequence[dict[str, Any]], *, check: bool = False) -> list[trial.Answer]:
    """What the child process would answer, where a debugger sees it and in a hundredth of the time.

    Plugins are those of the test; whoever tests hostile ones starts a command of its own.
    """
    work = child.checking() if check else child.discovering()
    answers = [json.loads(json.dumps(work(entry))) for entry in entries]
    return [{**answer, "files": {}, "disturbances": []} for answer in answers]


@pytest.fixture
def plugin_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginHost]:
    """A `PluginHost`; in this process nothing that is really installed is discovered."""
    folder = tmp_path / "throwaway-plugins"
    folder.mkdir()
    found = PluginHost(folder)
    monkeypatch.setattr(installed, "_search_path", lambda: [str(folder)])
    monkeypatch.setattr(trial, "tried", _tried_here)
    monkeypatch.setattr(kept.Kept, "add", lambda *_: None)
    monkeypatch.setenv("TFQ_BENCH_CACHE", str(tmp_path / "plugin-answers"))
    monkeypatch.syspath_prepend(str(folder))
    search = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *([search] if search else [])]))
    monkeypatch.delenv("TFQ_BENCH_BLOCK", raising=False)
    monkeypatch.delenv("TFQ_BENCH_STRICT_PLUGINS", raising=False)
    yield found
    found.forget()
