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
import importlib.metadata
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from tfq_bench.keys import content_digest, digest, file_digest, files_below
from tfq_bench.provenance.source_facts import SourceFacts, source_facts

__all__ = ["RunningCode"]

DIGITS = 8

NO_RESULTS = frozenset({"tfq_bench.store.frames"})
"""Modules of the host that read results and make none, though what makes them imports them."""

NO_INPUT = re.compile(
    r"(TFQ_BENCH_\w+|HF_\w*(HOME|CACHE|TOKEN|ENDPOINT|OFFLINE)|HUGGINGFACE_HUB_CACHE|TORCH_HOME"
    r"|XDG_\w+|HOME|PATH|PWD|USER|LOGNAME|SHELL|TERM|COLUMNS|CI|NO_COLOR|TMPDIR|TEMP|TMP"
    r"|\w*(VERBOSE|DEBUG|LOG_LEVEL|TOKEN|KEY|SECRET|PASSWORD))"
)
"""Variables that say where things lie, who asks or what is shown, which results do not depend on"""

NO_NUMBERS = frozenset(
    {"filelock", "huggingface-hub", "packaging", "pluggy", "requests", "rich", "tqdm"}
    | {"typing-extensions"}
)
"""Libraries that find, fetch and print; no number depends on their version."""

_TOP = re.compile(r'^"?([^/.,"\r\n]+)', re.MULTILINE)
"""The first part of a file's name in RECORD, or a line of top_level.txt"""

MANY = 400
"""Modules of a package beyond which only the bytes of its files are looked at, not their imports"""


class RunningCode:
    """Looks each file up once; make a new one when code may have changed."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[tuple[int, int], str]] = {}
        self._folders: dict[Path, list[Path]] = {}
        self._specs: dict[str, ModuleSpec | None] = {}
        self._facts: dict[Path, tuple[str, SourceFacts]] = {}
        self._libraries: dict[str, dict[str, str] | None] = {}
        self._required: dict[str, dict[str, str]] = {}
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
            walk = _Walk(self, key[0])
            walk.run()
            found = {f"code of {top}": _total(files) for top, files in walk.files.items()}
            versions = {**self.required(distribution), **walk.versions}
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

    def edited(self) -> Path | None:
        """A file that counted and is another by now, None when all are as they were."""
        for path, (stamp, sha256) in self._seen.items():
            try:
                if _stamp(path) != stamp and file_digest(path) != sha256:
                    return path
            except OSError:
                return path
        for folder, files in self._folders.items():
            try:
                if files_below(folder) != files:
                    return folder
            except OSError:
                return folder
        return None

    def sha256(self, path: Path) -> str:
        """SHA-256 of a file, remembered for `edited`."""
        if path not in self._seen:
            self._seen[path] = _stamp(path), file_digest(path)
        return self._seen[path][1]

    def watch(self, path: Path, sha256: str) -> None:
        """Remembers for `edited` a file whose SHA-256 is known."""
        self._seen.setdefault(path, (_stamp(path), sha256))

    def content(self, path: Path) -> str:
        """`content_digest` of a file or folder, remembered for `edited`; OSError as there."""
        if not path.is_dir():
            return self._of_file(path)
        files = self._folders[path] = files_below(path)
        return digest({f.relative_to(path).as_posix(): self._of_file(f) for f in files}, 64)

    def _of_file(self, path: Path) -> str:
        return self.sha256(path) if path.is_file() else content_digest(path)

    def spec(self, name: str) -> ModuleSpec | None:
        """Where a module is, None when nowhere. No package is imported to look into it."""
        if name not in self._specs:
            self._specs[name] = self._spec(name)
        return self._specs[name]

    def read(self, path: Path, module: str, *, package: bool) -> tuple[str, SourceFacts]:
        """SHA-256 of a file, and what it says when it is source text."""
        if path not in self._facts:
            sha256 = self.sha256(path)  # before it is read: an edit in between is seen later
            source = path.read_bytes() if path.suffix == ".py" else b""
            self._facts[path] = sha256, source_facts(source, module, package=package)
        return self._facts[path]

    def libraries(self, top: str) -> dict[str, str] | None:
        """Name and version of the distributions that own a package; None when it is live."""
        if top not in self._libraries:
            spec = self.spec(top)
            assert spec is not None
            places = spec.submodule_search_locations or ([spec.origin] if spec.origin else [])
            folders = {Path(place).parent for place in places}
            owners = [one for folder in sorted(folders) for one in _owners(folder, top)]
            versions = [_version(one) for one in owners]
            found = {name: version for name, version in versions if version}
            self._libraries[top] = found if found and len(found) == len(versions) else None
        return self._libraries[top]

    def required(self, distribution: str) -> dict[str, str]:
        """Versions of what a distribution requires, by name."""
        if distribution not in self._required:
            self._required[distribution] = _required(distribution)
        return self._required[distribution]

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


class _Walk:
    """One walk from some modules over all that they import."""

    def __init__(self, code: RunningCode, roots: tuple[str, ...]) -> None:
        self._code = code
        self._own = {_top(root) for root in roots}
        self._stack = list(roots)
        self._seen: set[str] = set(NO_RESULTS)
        self.files: dict[str, dict[str, str]] = {}
        self.versions: dict[str, str] = {}
        self.variables: set[str] = set()

    def run(self) -> None:
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
            spec = self._code.spec(name)
            if spec is None:
                continue  # a name in a module, or a package that is not there
            libraries = None if top in self._own else self._code.libraries(top)
            if libraries is None:
                self._read(name, spec)
            else:
                self.versions |= libraries

    def _read(self, name: str, spec: ModuleSpec) -> None:
        path = _file(spec.origin)
        if path is None:
            return
        package = spec.submodule_search_locations is not None
        sha256, says = self._code.read(path, name, package=package)
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
        spec = self._code.spec(top)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            files = _tree(Path(root), (".py", ".so"))
            for path in files:
                parts = path.relative_to(root).with_suffix("").parts
                name = ".".join([top, *(part for part in parts if part != "__init__")])
                if len(files) <= MANY and path.suffix == ".py":
                    self._stack.append(name)
                else:
                    self._add(top, name, self._code.sha256(path))

    def _beside(self, name: str, path: Path, texts: set[str], *, package: bool) -> None:
        """Files that a module reads beside itself: those that its text names, or else all."""
        root = path.parent
        named = [root / text for text in texts if not text.startswith(("/", "."))]
        top = self._code.spec(_top(name))
        for place in (top.submodule_search_locations or ()) if top else ():
            named += [Path(place) / text for text in texts if not text.startswith(("/", "."))]
        found = [file for entry in named for file in _entries(entry)]
        if not found and package:
            found = [file for file in root.iterdir() if file.is_file() and file.suffix != ".py"]
        for file in found:
            self._add(_top(name), os.path.relpath(file, root), self._code.sha256(file))

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


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


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


def _owners(folder: Path, top: str) -> list[importlib.metadata.Distribution]:
    """The distributions in a folder that say a package there is theirs."""
    return [one for one, tops in _records(folder) if top in tops]


def _records(folder: Path) -> list[tuple[importlib.metadata.Distribution, frozenset[str]]]:
    try:
        return _records_at(folder, folder.stat().st_mtime_ns)
    except OSError:
        return []


@lru_cache(maxsize=64)
def _records_at(
    folder: Path,
    mtime: int,  # noqa: ARG001  (part of the cache's key)
) -> list[tuple[importlib.metadata.Distribution, frozenset[str]]]:
    """The distributions in a folder, with the first parts of the names of their files."""
    found = []
    for one in importlib.metadata.distributions(path=[str(folder)]):
        try:
            text = one.read_text("RECORD") or one.read_text("top_level.txt") or ""
        except Exception:  # damaged metadata owns nothing
            text = ""
        found.append((one, frozenset(_TOP.findall(text))))
    return found


def _version(one: importlib.metadata.Distribution) -> tuple[str, str]:
    """Name and version, with the digest of a wheel that came from no index.

    The version is empty where it says nothing about the code: an installation from a folder or a
    repository, or damaged metadata.
    """
    try:
        name, version = _plain(one.metadata["Name"]), one.version
        origin = json.loads(one.read_text("direct_url.json") or "{}")
        if "dir_info" in origin or "vcs_info" in origin:
            return name, ""
        return name, f"{version} {origin.get('archive_info', {}).get('hash', '')}".strip()
    except Exception:
        return str(one), ""


def _required(distribution: str) -> dict[str, str]:
    """Versions of what a distribution requires, but for extras and our own, which are followed."""
    found = {}
    try:
        lines = importlib.metadata.distribution(distribution).requires if distribution else None
    except Exception:  # not installed, or damaged
        return {}
    for line in lines or ():
        name = re.match(r"[\w.-]+", line)
        if name is None or "extra ==" in line or name[0].lower().startswith("tfq-bench"):
            continue
        try:
            found[_plain(name[0])] = importlib.metadata.version(name[0])
        except Exception:
            continue
    return found


def _plain(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
