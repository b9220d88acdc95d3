"""A walk over all that some modules import, without importing anything; see `running_code`."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from tfq_bench.provenance.libraries import owners, version_of
from tfq_bench.provenance.seen_files import SeenFiles
from tfq_bench.provenance.source_facts import SourceFacts, source_facts

__all__ = ["ImportWalk", "Modules"]

NO_RESULTS = frozenset({"tfq_bench.store.frames"})
"""Modules of the host that read results and make none, though what makes them imports them."""

MANY = 400
"""Modules of a package beyond which only the bytes of its files are looked at, not their imports"""


class Modules:
    """Where modules are and what they say, each looked up once in the files of `seen`."""

    def __init__(self, seen: SeenFiles) -> None:
        self.seen = seen
        self._specs: dict[str, ModuleSpec | None] = {}
        self._facts: dict[Path, tuple[str, SourceFacts]] = {}
        self._libraries: dict[str, dict[str, str] | None] = {}

    def spec(self, name: str) -> ModuleSpec | None:
        """Where a module is, None when nowhere. No package is imported to look into it."""
        if name not in self._specs:
            self._specs[name] = self._spec(name)
        return self._specs[name]

    def read(self, path: Path, module: str, *, package: bool) -> tuple[str, SourceFacts]:
        """SHA-256 of a file, and what it says when it is source text."""
        if path not in self._facts:
            sha256 = self.seen.sha256(path)  # before it is read: an edit in between is seen later
            source = path.read_bytes() if path.suffix == ".py" else b""
            self._facts[path] = sha256, source_facts(source, module, package=package)
        return self._facts[path]

    def libraries(self, top: str) -> dict[str, str] | None:
        """Name and version of the distributions that own a package; None when it is live."""
        if top not in self._libraries:
            spec = self.spec(top)
            assert spec is not None
            places = spec.submodule_search_locations or ([spec.origin] if spec.origin else [])
            folders = sorted({Path(place).parent for place in places})
            versions = [version_of(one) for folder in folders for one in owners(folder, top)]
            found = {name: version for name, version in versions if version}
            self._libraries[top] = found if found and len(found) == len(versions) else None
        return self._libraries[top]

    def _spec(self, name: str) -> ModuleSpec | None:
        parent, _, _ = name.rpartition(".")
        try:
            if not parent:
                return importlib.util.find_spec(name)
            above = self.spec(parent)
            if above is None or above.submodule_search_locations is None:
                return None
            return PathFinder.find_spec(name, list(above.submodule_search_locations))
        except Exception:  # finders are anybody's code
            return None


class ImportWalk:
    """One walk from some modules over all that they import.

    Attributes:
        files: SHA-256 by name, by top-level package. versions: of libraries, by distribution.
        variables: environment variables that live code reads by name.
    """

    def __init__(self, modules: Modules, roots: tuple[str, ...]) -> None:
        self._modules = modules
        self._own = {_top(root) for root in roots}
        self._stack = list(roots)
        self._seen: set[str] = set(NO_RESULTS)
        self.files: dict[str, dict[str, str]] = {}
        self.versions: dict[str, str] = {}
        self.variables: set[str] = set()

    def run(self) -> None:
        """Follows every import; `files`, `versions` and `variables` are complete afterwards."""
        while self._stack:
            name = self._stack.pop()
            if name in self._seen:
                continue
            self._seen.add(name)
            top = _top(name)
            if not top or top in sys.stdlib_module_names:
                continue
            if name != top:
                self._stack.append(name.rpartition(".")[0])
            spec = self._modules.spec(name)
            if spec is None:
                continue  # a name in a module, or a package that is not there
            libraries = None if top in self._own else self._modules.libraries(top)
            if libraries is None:
                self._read(name, spec)
            else:
                self.versions |= libraries

    def _read(self, name: str, spec: ModuleSpec) -> None:
        path = _file(spec.origin)
        if path is None:
            return
        package = spec.submodule_search_locations is not None
        sha256, says = self._modules.read(path, name, package=package)
        self._add(_top(name), name, sha256)
        self.variables |= says.variables
        self._stack += says.imports
        if says.dynamic:
            self._stack += says.names
            self._whole(_top(name))
        if says.beside:
            self._beside(name, path, says.texts, package=package)

    def _whole(self, top: str) -> None:
        """Every module of a package, because one of it imports who knows what."""
        if f"{top}:whole" in self._seen:
            return
        self._seen.add(f"{top}:whole")
        spec = self._modules.spec(top)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            files = _tree(Path(root), (".py", ".so"))
            for path in files:
                parts = path.relative_to(root).with_suffix("").parts
                name = ".".join([top, *(part for part in parts if part != "__init__")])
                if len(files) <= MANY and path.suffix == ".py":
                    self._stack.append(name)
                else:
                    self._add(top, name, self._modules.seen.sha256(path))

    def _beside(self, name: str, path: Path, texts: set[str], *, package: bool) -> None:
        """Files that a module reads beside itself: those that its text names, or else all."""
        root = path.parent
        named = [root / text for text in texts if not text.startswith(("/", "."))]
        top = self._modules.spec(_top(name))
        for place in (top.submodule_search_locations or ()) if top else ():
            named += [Path(place) / text for text in texts if not text.startswith(("/", "."))]
        found = [file for entry in named for file in _entries(entry)]
        if not found and package:
            found = [file for file in root.iterdir() if file.is_file() and file.suffix != ".py"]
        for file in found:
            self._add(_top(name), os.path.relpath(file, root), self._modules.seen.sha256(file))

    def _add(self, top: str, name: str, sha256: str) -> None:
        self.files.setdefault(top, {})[name] = sha256


def _top(name: str) -> str:
    return name.partition(".")[0]


def _file(origin: str | None) -> Path | None:
    """The file of a module; of one in an archive, the archive."""
    if origin is None:
        return None
    path = Path(origin)
    return next((one for one in (path, *path.parents) if one.is_file()), None)


def _entries(path: Path) -> list[Path]:
    try:
        if path.is_dir():
            return _tree(path)
        return [path] if path.is_file() else []
    except (OSError, ValueError):  # a text that no file can be called
        return []


def _tree(root: Path, suffix: str | tuple[str, ...] = "") -> list[Path]:
    """Files below a folder, without hidden and compiled ones, and without run folders."""
    found = []
    for folder, folders, files in os.walk(root):
        if "run.lock" in files:
            folders.clear()
            continue
        folders[:] = [one for one in folders if not one.startswith(".") and one != "__pycache__"]
        found += [
            Path(folder) / file
            for file in files
            if not file.startswith(".") and file.endswith(suffix) and not file.endswith(".pyc")
        ]
    return [path for path in sorted(found) if path.is_file()]
