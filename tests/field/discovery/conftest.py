"""A machine with a plugin that notes each import."""

import pytest

from .marked_plugin import MARK


@pytest.fixture
def marked(machine):
    """A machine with a plugin that notes each import; `imports()` says how many there were."""
    path = machine.cwd / "imports"
    machine.plugin("marked", MARK.format(path=str(path), name="marked"))
    machine.imports = lambda: path.read_text().count("\n") if path.exists() else 0
    return machine
