"""Checks who imports whom; nothing is imported, so that neither torch nor a plugin need be there.

    python .ci/imports.py

Three things: the layers inside a distribution (`[tool.importlinter]` in its pyproject.toml), what
distributions may import of each other, made here from their folders, and that no files form a
circle, in annotations neither.
"""

from __future__ import annotations

import re
import sys
import tempfile
import tomllib
from pathlib import Path

import grimp
from distributions import distributions
from importlinter.cli import lint_imports

HOST = "tfq_bench"
DOORS = ("api", "metrics", "quant", "stats", "store", "trends")
"""Packages of the host that a distribution may import from, not from what is inside of them."""


def main() -> int:
    """The exit code: 0 when every contract holds."""
    folders = {package(folder): folder for folder in distributions()}
    sys.path[:0] = [str(source(folder)) for folder in folders.values()]
    broken = 0
    for folder in folders.values():
        text = (folder / "pyproject.toml").read_text("utf-8")
        if "importlinter" in tomllib.loads(text)["tool"]:
            broken |= lint_imports(config_filename=str(folder / "pyproject.toml"), no_cache=True)
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(contracts(folders))
        file.flush()
        broken |= lint_imports(config_filename=file.name, no_cache=True)
    graph = grimp.build_graph(*folders, cache_dir=None)
    ahead = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    found = circles(ahead)
    for circle in found:
        print(f"files that import each other: {', '.join(circle)}")
    print(f"{len(ahead)} files, {rooms_and_arrows(ahead)}, {len(found)} circles")
    return broken or int(bool(found))


def rooms_and_arrows(ahead: dict[str, set[str]]) -> str:
    """How many folders and lone modules the distributions have, and what imports between them."""
    room = {
        name: name if any(other.startswith(f"{name}.") for other in ahead) else parent
        for name in ahead
        if (parent := name.rpartition(".")[0] or name)
    }
    lone = {name for name in ahead if room[name] == HOST}
    room |= {name: name for name in lone}
    arrows = {(room[a], room[b]) for a, others in ahead.items() for b in others}
    between = sum(a != b for a, b in arrows)
    return f"{len(set(room.values()))} rooms (lone modules of the host too), {between} arrows"


def package(folder: Path) -> str:
    """The import package of a distribution, by its metadata: `tfq_bench_cpu`."""
    return metadata(folder)["name"].replace("-", "_")


def source(folder: Path) -> Path:
    """The folder that holds the import package."""
    return folder / "src" if (folder / "src").is_dir() else folder


def metadata(folder: Path) -> dict:
    """The table `project` of a distribution's `pyproject.toml`."""
    return tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]


def requirements(project: dict) -> list[str]:
    """What a distribution requires, its extras too, as in its metadata: `torch>=2.11`."""
    extras = project.get("optional-dependencies", {})
    return [*project["dependencies"], *(text for texts in extras.values() for text in texts)]


def contracts(folders: dict[str, Path]) -> str:
    """The configuration of import-linter for the distributions, as TOML."""
    plugins = [name for name in folders if name != HOST]
    doors = [f"{name}.** -> {HOST}.{door}" for name in plugins for door in DOORS]
    # What a distribution requires, or an extra of it, it may import: the embedded networks are
    # diffusers networks, and the contestant `nncf` takes OpenVINO as its backend does.
    required = [
        f"{name}.** -> {other}.**"
        for name in plugins
        for text in requirements(metadata(folders[name]))
        if (other := re.split(r"[^\w-]", text)[0].replace("-", "_")) in plugins
    ]
    return f"""
[tool.importlinter]
root_packages = {[HOST, *plugins]}
include_external_packages = true
exclude_type_checking_imports = true

[[tool.importlinter.contracts]]
name = "The host knows no plugin"
type = "forbidden"
source_modules = ["{HOST}"]
forbidden_modules = {["diffusers", *plugins]}

[[tool.importlinter.contracts]]
name = "Distributions know those that they require"
type = "independence"
ignore_imports = {required}
unmatched_ignore_imports_alerting = "none"
modules = {plugins}

[[tool.importlinter.contracts]]
name = "Distributions enter the host by its doors: {", ".join(DOORS)}"
type = "forbidden"
source_modules = {plugins}
forbidden_modules = ["{HOST}.*"]
allow_indirect_imports = true
unmatched_ignore_imports_alerting = "none"
ignore_imports = {doors}
"""


def circles(ahead: dict[str, set[str]]) -> list[list[str]]:
    """Groups of files each of which leads back to itself through the others, by their names."""
    ahead, found = dict(ahead), []
    # What imports nothing, or is imported by nothing, is in no circle; peeled until none is left.
    while loose := [name for name, others in ahead.items() if not others & ahead.keys()]:
        for name in loose:
            del ahead[name]
    while ahead:
        start = min(ahead)
        forward, back = reach(start, ahead), reach(start, turned(ahead))
        circle = forward & back
        if circle:
            found.append(sorted(circle))
        for name in circle or {start}:
            del ahead[name]
    return found


def turned(ahead: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same arrows, pointing back."""
    return {name: {other for other in ahead if name in ahead[other]} for name in ahead}


def reach(start: str, ahead: dict[str, set[str]]) -> set[str]:
    """Where the arrows lead from `start`; with `start` itself only when they lead back to it."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        new = (ahead[todo.pop()] & ahead.keys()) - seen
        seen |= new
        todo += new
    return seen


if __name__ == "__main__":
    sys.exit(main())
