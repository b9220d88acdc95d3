"""The house has few rooms, and each says truly what is in it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOST = ROOT / "tfq_bench"
REPORTS = ROOT / "reports" / "src" / "tfq_bench_reports"
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


def test_every_distribution_is_installed_by_the_requirements():
    """A folder of `plugins/` or `baselines/` is one line of requirements.txt."""
    folders = [path.parent for path in ROOT.glob("*/*/pyproject.toml")]
    assert len(folders) > 5
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    assert [] == [f for f in folders if f"-e {f.relative_to(ROOT)}" not in lines]
