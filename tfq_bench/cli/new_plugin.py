"""`tfq-bench plugins new`: writes a distribution with one plugin that works as it is."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import keyword
import re
import shlex
from pathlib import Path

from tfq_bench.errors import UsageError, nearest
from tfq_bench.foreign.text import printable
from tfq_bench.host.plugins import discover
from tfq_bench.templates.author_kit import KINDS, PluginNames, marks, rendered

__all__ = ["add_arguments", "execute"]

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST = 28
"""Characters of a name, so that no line of what is written becomes too long."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds KIND, NAME, `--into` and `--dry-run`."""
    parser.add_argument("kind", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument(
        "name",
        metavar="NAME",
        help="of the distribution, such as my-method, and of what suites call it; without "
        "'tfq-bench-' where it begins with that",
    )
    parser.add_argument(
        "--into",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="where the folder NAME is made (here)",
    )
    parser.add_argument("--dry-run", action="store_true", help="list the files, write nothing")


def execute(args: argparse.Namespace) -> int:
    """Writes the distribution, and says what to change and how to try it."""
    names = _names(args.kind, args.name)
    target: Path = args.into / names.distribution
    _refuse_folder(target)
    _refuse_installed(names)
    files = rendered(names)
    if args.dry_run:
        print(*(printable(target / path) for path in files), sep="\n")
        return 0
    from tfq_bench.store.disk import store_error, write_atomically

    for path, text in files.items():
        try:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise store_error(error, target) from error
        write_atomically(target / path, text)
    print(f"{printable(target)}: the {names.kind} '{names.name}', which works as it is.")
    print("Change these lines to make it yours:")
    for mark in marks(files):
        print(f"  {printable(target / mark.file)}:{mark.line}  {mark.text}")
    print("Try it, now and after each change:")
    enter = () if args.into == Path() else (f"cd {shlex.quote(printable(args.into))}",)
    for line in (*enter, *names.install, *names.use):
        print(f"  {line}")
    return 0


def _names(kind: str, name: str) -> PluginNames:
    if kind not in KINDS:
        raise UsageError(f"no kind is called '{printable(kind, 80)}'; {nearest(kind, KINDS)}")
    names = PluginNames(kind=kind, distribution=name)
    if not _NAME.fullmatch(name) or len(name) > LONGEST or not _NAME.fullmatch(names.name):
        close = re.sub(r"[^a-z0-9]+", "-", name.lower()).lstrip("-0123456789")[:LONGEST].strip("-")
        hint = f"; did you mean '{close}'?" if _NAME.fullmatch(close) and close != name else "."
        raise UsageError(
            f"NAME is expected to be a distribution's name of at most {LONGEST} lower-case "
            "letters, digits and single hyphens that begins with a letter, such as "
            f"'my-{kind}'; found '{printable(name, 80)}'{hint}"
        )
    if keyword.iskeyword(names.package):
        raise UsageError(
            f"'{name}' is a word of Python, and so no package's name; try 'my-{name}'."
        )
    return names


def _refuse_folder(target: Path) -> None:
    try:
        taken = target.exists() and not (target.is_dir() and not any(target.iterdir()))
    except OSError:
        taken = True
    if taken:
        raise UsageError(
            f"'{printable(target)}' is there already, and nothing is written over. Choose another "
            "NAME, or another folder with --into."
        )


def _refuse_installed(names: PluginNames) -> None:
    """Raises UsageError when a provider, distribution or package has one of the names."""
    table = discover()
    if names.name in table.names(names.kind):
        owner = next(
            plugin.source
            for plugin in table.plugins
            for provider in plugin.providers
            if (names.kind, names.name) == (provider.kind, provider.name)
        )
        raise UsageError(
            f"{names.kind} '{names.name}' exists already, of {owner}. Choose another name than "
            f"these: {', '.join(table.names(names.kind))}."
        )
    try:
        version = importlib.metadata.version(names.distribution)
    except importlib.metadata.PackageNotFoundError:
        spec = importlib.util.find_spec(names.package)
        if spec is None or spec.origin is None:  # a mere folder is no package
            return
        found = f"the package '{names.package}' can be imported already"
    else:
        found = f"the distribution {names.distribution} {version} is installed already"
    raise UsageError(f"{found}, and would be hidden. Choose another name.")
