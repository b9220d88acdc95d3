"""What one Python file says of itself without being run: imports, files beside it, settings.

`import_walk` follows the imports. What is behind `if TYPE_CHECKING` never runs and does not count;
what stands in functions does.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

__all__ = ["SourceFacts", "source_facts"]

DYNAMIC = frozenset(
    {
        "__import__",
        "import_module",
        "exec",
        "run_module",
        "run_path",
        "spec_from_file_location",
        "SourceFileLoader",
        "iter_modules",
        "walk_packages",
        "resolve_name",
    }
)
"""Names by which a module imports what its text does not say."""

BESIDE = frozenset({"__file__", "__path__", "resources", "get_data"})
"""Names by which a module reads files of its own package."""

_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?::[A-Za-z_]\w*)?")


@dataclass(slots=True)
class SourceFacts:
    """What a file's text says.

    Args:
        imports: dotted names of modules, or of things in modules.
        names: texts that may name modules; all there are where the file imports dynamically.
        texts: texts that may name files; all there are where the file reads files beside it.
        variables: environment variables that it reads by name.
        dynamic: whether it imports what its text does not say.
        beside: whether it reads files of its own package.
    """

    imports: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    variables: set[str] = field(default_factory=set)
    dynamic: bool = False
    beside: bool = False


@lru_cache(maxsize=4096)
def source_facts(source: bytes, module: str, *, package: bool) -> SourceFacts:
    """The facts of a file.

    Args:
        module: its dotted name. package: whether it is an ``__init__``.
    """
    found = SourceFacts()
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        found.dynamic = True  # nothing is known about it
        return found
    parts = module.split(".")
    here = parts if package else parts[:-1]
    texts: set[str] = set()
    for node in _running(tree):
        if isinstance(node, ast.Import):
            found.imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found.imports.add(stem)
            found.imports.update(f"{stem}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str) and 0 < len(node.value) <= 500:
                texts.add(node.value)
        elif isinstance(node, ast.Name | ast.Attribute | ast.alias):
            name = _name(node).rpartition(".")[2]
            found.dynamic |= name in DYNAMIC
            found.beside |= name in BESIDE
        elif isinstance(node, ast.Call | ast.Subscript | ast.Compare):
            found.variables |= _variables(node)
    if found.dynamic:
        found.names = {text.partition(":")[0] for text in texts if _DOTTED.fullmatch(text)}
    if found.beside:
        found.texts = texts
    return found


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those behind `if TYPE_CHECKING` (its `else` runs)."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, ast.If) and _type_checking(node.test):
            stack += node.orelse
        else:
            stack += ast.iter_child_nodes(node)


def _type_checking(test: ast.expr) -> bool:
    return _name(test) == "TYPE_CHECKING"


def _name(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
            return name
    return ""


def _variables(node: ast.AST) -> set[str]:
    """The environment variable that an expression reads, when it is written out."""
    match node:
        case ast.Subscript(value=held, slice=ast.Constant(value=str(key))):
            return {key} if _name(held) == "environ" else set()
        case ast.Compare(left=ast.Constant(value=str(key)), comparators=[held]):
            return {key} if _name(held) == "environ" else set()
        case ast.Call(func=function, args=[ast.Constant(value=str(key)), *_]):
            of = _name(function.value) if isinstance(function, ast.Attribute) else ""
            reads = _name(function) == "getenv" or of == "environ"
            return {key} if reads else set()
    return set()
