"""The house has few rooms, and each says truly what is in it."""

import ast
import re
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from tfq_bench.cli import VERBS
from tfq_bench.host import builtin
from tfq_bench.version import __version__

ROOT = Path(__file__).parent.parent
HOST = ROOT / "tfq_bench"
REPORTS = ROOT / "reports" / "src" / "tfq_bench_reports"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
ROOMS = sorted(file.parent for top in (HOST, REPORTS) for file in top.rglob("*/__init__.py"))


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(ROOT)))
def test_a_folder_says_what_it_holds_and_what_it_imports(room):
    """Its docstring has `Here`, `Not here` and `Imports`, and the last names what is imported."""
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text("utf-8"))) or ""
    found = re.search(r"^Here: .*^Not here: .*^Imports: (.*?)\.?\Z", text, re.DOTALL | re.MULTILINE)
    assert found, f"{room / '__init__.py'} opens with: {text!r}"
    stated = {name.strip() for name in re.split(r"[,\s]+", found[1])} - {"nothing"}
    assert sorted(imported(room)) == sorted(stated)


def imported(room):
    """The host's rooms and root modules whose names a room's files import, annotations aside."""
    top = HOST if HOST in room.parents else REPORTS
    package = top.name
    own = ".".join(room.relative_to(top).parts)
    names = set()
    for file in room.rglob("*.py"):
        for full in run_imports(ast.parse(file.read_text("utf-8"))):
            head, _, rest = full.partition(".")
            if head == "tfq_bench" and top != HOST:
                names.add(".".join(full.split(".")[:2]))
            elif head == package and rest and not f"{rest}.".startswith(f"{own}."):
                names.add(shortest(top, rest.split(".")))
    return names - {own}


def shortest(top, parts):
    """`quant.state.affine` is in the room `quant.state`, `keys` is a module of the root."""
    while len(parts) > 1 and not top.joinpath(*parts).is_dir():
        parts = parts[:-1]
    return ".".join(parts)


def run_imports(tree):
    """The full names that a file imports when it runs."""
    todo, names = list(tree.body), []
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        todo += ast.iter_child_nodes(node)
    return names


def test_the_root_holds_at_most_ten_modules():
    """What is not in a room of its own can be read at a glance."""
    assert len(list(HOST.glob("*.py"))) <= 10


def test_contributing_lists_every_room():
    """The table of rooms names each folder of the host once, and no other."""
    table = CONTRIBUTING.split("| room of `tfq_bench/` |")[1].split("\n\n")[0]
    listed = re.findall(r"`([a-z/]+)/`", table)
    assert sorted(listed) == [str(room.relative_to(HOST)) for room in ROOMS if HOST in room.parents]


@pytest.mark.parametrize("factory", [p.factory for p in builtin.tfq_metrics()])
def test_a_metric_is_known_to_its_provider_alone(factory):
    """The walk "a metric": the class is named in its own file and by its provider."""
    module, _, name = factory.partition(":")
    own = ROOT / f"{module.replace('.', '/')}.py"
    naming = [file for file in HOST.rglob("*.py") if re.search(rf"\b{name}\b", code(file))]
    assert {own, HOST / "host" / "builtin.py"} == set(naming)


@pytest.mark.parametrize("verb", VERBS)
def test_a_command_is_a_file_and_a_line(verb):
    """The walk "a command": the rest of the command line does not know it."""
    assert {"NAME", "HELP", "add_arguments", "execute"} <= set(
        dir(import_module(f"tfq_bench.cli.{verb}"))
    )
    assert 1 == code(HOST / "cli" / "__init__.py").count(f"'{verb}'")


def test_a_distribution_is_a_folder_and_a_line():
    """The walk "a quantizer": no tool's configuration names a distribution besides the host's."""
    folders = [path.parent.name for path in ROOT.glob("*/*/pyproject.toml")]
    for file in ("pyproject.toml", "tox.ini", "toxfile.py"):
        text = (ROOT / file).read_text("utf-8")
        assert [] == [name for name in folders if name in text or name.replace("-", "_") in text]


@cache
def code(file):
    """A file's code without comments and docstrings."""
    tree = ast.parse(file.read_text("utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            del body[0]
    return ast.unparse(tree)


def test_the_host_has_one_version():
    """What the package says of itself is what its metadata say."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == __version__


def test_every_distribution_is_installed_by_the_requirements():
    """A folder of `plugins/` or `baselines/` is one line of requirements.txt."""
    folders = [path.parent for path in ROOT.glob("*/*/pyproject.toml")]
    assert len(folders) > 5
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    assert [] == [f for f in folders if f"-e {f.relative_to(ROOT)}" not in lines]
