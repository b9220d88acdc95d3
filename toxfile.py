"""Lets tox environments of equal dependencies live in one folder, so that torch is installed once.

tox recreates a folder that another environment made. The runner `shared` keeps it: what was
installed is still compared, so environments whose `deps` differ cannot share by accident.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tox.plugin import impl
from tox.tox_env.info import Info
from tox.tox_env.python.virtual_env.runner import VirtualEnvRunner
from tox.tox_env.register import ToxEnvRegister


class _Info(Info):
    """The notes in a folder, without the name of the environment that made it."""

    @contextmanager
    def compare(
        self, value: Any, section: str, sub_section: str | None = None
    ) -> Iterator[tuple[bool, Any]]:
        """What `Info.compare` says of a value whose environment has a common name."""
        if section == "ToxEnv":
            value = {**value, "name": "shared"}
        with super().compare(value, section, sub_section) as found:
            yield found


class SharedRunner(VirtualEnvRunner):
    """The runner `shared`."""

    @staticmethod
    def id() -> str:
        """How tox.ini names it."""
        return "shared"

    @property
    def cache(self) -> Info:
        """The notes in the folder."""
        return _Info(self.env_dir)


@impl
def tox_register_tox_env(register: ToxEnvRegister) -> None:
    """Makes the runner known."""
    register.add_run_env(SharedRunner)
