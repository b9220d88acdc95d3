"""The code that runs for a component: what its factory imports, wherever that lies.

Results are stored by content, and code is part of it. From a factory's module the imports are
followed through all code that can change under its version number:

    live      the factory's own package, the host, whatever is installed with ``pip install -e`` or
              from a folder or repository, and what no installed distribution owns (PYTHONPATH, the
              folder of a notebook): its files count by their bytes
    library   a distribution from an index: it counts by its version

Nothing is imported. A module that imports by names its text does not say counts with its whole
package; one that reads files beside it counts with those it names, and environment variables that
live code reads count by their values.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from tfq_bench.keys import file_digest
from tfq_bench.provenance.import_walk import ImportWalk, Modules
from tfq_bench.provenance.libraries import required_versions
from tfq_bench.provenance.seen_files import SeenFiles

__all__ = ["RunningCode"]

DIGITS = 8

NO_INPUT = re.compile(
    r"(TFQ_BENCH_\w+|HF_\w*(HOME|CACHE|TOKEN|ENDPOINT|OFFLINE)|HUGGINGFACE_HUB_CACHE|TORCH_HOME"
    r"|CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER"  # of the GPU its name counts
    r"|XDG_\w+|HOME|PATH|PWD|USER|LOGNAME|SHELL|TERM|COLUMNS|CI|NO_COLOR|TMPDIR|TEMP|TMP"
    r"|\w*(VERBOSE|DEBUG|LOG_LEVEL|TOKEN|KEY|SECRET|PASSWORD))"
)
"""Variables that say where things lie, who asks or what is shown, which results do not depend on"""

NO_NUMBERS = frozenset(
    {"filelock", "huggingface-hub", "packaging", "pluggy", "requests", "rich", "tqdm"}
    | {"typing-extensions"}
)
"""Libraries that find, fetch and print; no number depends on their version."""


class RunningCode(SeenFiles):
    """Looks each file up once; make a new one when code may have changed."""

    def __init__(self) -> None:
        super().__init__()
        self._modules = Modules(self)
        self._required = cache(required_versions)
        self._known: dict[tuple[tuple[str, ...], str], dict[str, str]] = {}

    def facts(self, roots: Iterable[str], *, distribution: str = "") -> dict[str, str]:
        """What runs when these modules are imported and used.

        Args:
            roots: dotted names of modules.
            distribution: what declares the component; its direct requirements count too.

        Returns:
            `{"code of my_package": digest, "version of torch": "2.14.1", "setting X": digest}`.
        """
        key = tuple(sorted(set(roots))), distribution
        if key not in self._known:
            walk = ImportWalk(self._modules, key[0])
            walk.run()
            found = {f"code of {top}": _total(files) for top, files in walk.files.items()}
            versions = {**self._required(distribution), **walk.versions}
            found |= {
                f"version of {name}": version
                for name, version in versions.items()
                if name not in NO_NUMBERS
            }
            found |= {
                f"setting {name}": _setting(os.environ[name])
                for name in walk.variables
                if name in os.environ and not NO_INPUT.fullmatch(name)
            }
            self._known[key] = dict(sorted(found.items()))
        return self._known[key]


def _total(files: dict[str, str]) -> str:
    lines = "".join(f"{name}\0{sha256}\n" for name, sha256 in sorted(files.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()[:DIGITS]


def _setting(value: str) -> str:
    """Digest of a variable's value, which is nobody's business, or of the file that it names."""
    try:
        if Path(value).is_file():
            return file_digest(Path(value))[:DIGITS]
    except (OSError, ValueError):
        pass
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()[:DIGITS]
