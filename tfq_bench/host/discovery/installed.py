"""What distributions declare in the group `tfq_bench`, read without believing any of their files.

A distribution whose files are damaged is listed as broken, with the reason; one that does not
name the group is none of ours, whatever its state.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tfq_bench.foreign.text import printable
from tfq_bench.host.discovery.reading import read_small
from tfq_bench.host.inspection import Draft, PluginInfo
from tfq_bench.provenance.code_version import code_version, is_editable
from tfq_bench.provenance.libraries import canonical_name

__all__ = ["GROUP", "installed", "same"]

GROUP = "tfq_bench"
"""Entry-point group that plugins declare."""

MAX_BYTES = 1 << 20
MAX_ENTRIES = 100
"""Of one distribution."""

MAX_NAME = 100

_HEADER = re.compile(r"\[(.*)\]")
_MODULE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
# PEP 440, in the form that `packaging` recommends.
_VERSION = re.compile(
    r"v?(?:\d+!)?\d+(?:\.\d+)*(?:[-_.]?(?:alpha|a|beta|b|preview|pre|c|rc)[-_.]?\d*)?"
    r"(?:-\d+|[-_.]?(?:post|rev|r)[-_.]?\d*)?(?:[-_.]?dev[-_.]?\d*)?"
    r"(?:\+[a-z0-9]+(?:[-_.][a-z0-9]+)*)?",
    re.IGNORECASE | re.ASCII,
)


class _Damaged(Exception):
    """What is wrong with a file of a distribution, as a sentence."""


def installed() -> list[Draft]:
    """One draft per entry point, sorted by distribution and name; damaged ones with their fault."""
    drafts = [draft for found in _distributions() for draft in _drafts(found)]
    return sorted(drafts, key=lambda one: (canonical_name(one.info.distribution), one.info.name))


def same(one: str, other: str) -> bool:
    """Whether two names are those of one distribution or entry point."""
    return canonical_name(one) == canonical_name(other)


@dataclass(frozen=True, slots=True)
class _Found:
    """The metadata of one distribution; `twins` are others of its name in the same folder."""

    distribution: importlib.metadata.Distribution
    stem: str
    twins: tuple[str, ...] = ()

    def read_text(self, filename: str) -> str | None:
        """That file of the metadata, None when there is none.

        Raises:
            ValueError: what is wrong with it, in words.
        """
        folder = getattr(self.distribution, "_path", None)
        if not isinstance(folder, Path):  # in an archive
            try:
                return self.distribution.read_text(filename)
            except Exception as error:
                raise ValueError(f"it cannot be read: {printable(error, 200)}") from None
        try:
            return read_small(folder / filename, MAX_BYTES).decode("utf-8-sig")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as error:
            raise ValueError(f"it is not UTF-8 ({error.reason} at byte {error.start})") from None


def _search_path() -> list[str]:
    return [str(folder) for folder in sys.path]


def _distributions() -> Iterator[_Found]:
    """Every distribution once: a folder hides those of later folders, as for imports."""
    seen: set[str] = set()
    for folder in dict.fromkeys(_search_path()):
        here: dict[str, list[tuple[str, importlib.metadata.Distribution]]] = {}
        try:
            for distribution in importlib.metadata.distributions(path=[folder]):
                stem = _stem(distribution)
                name = canonical_name(stem.partition("-")[0])
                here.setdefault(name, []).append((stem, distribution))
        except Exception:
            continue
        for name, found in here.items():
            if name not in seen:
                found.sort(key=lambda pair: pair[0])
                stems = tuple(stem for stem, _ in found)
                yield _Found(found[0][1], stems[0], stems[1:])
        seen.update(here)


def _stem(distribution: importlib.metadata.Distribution) -> str:
    path = Path(str(getattr(distribution, "_path", "unknown")))
    return path.name.removesuffix(".dist-info").removesuffix(".egg-info")


def _drafts(found: _Found) -> Iterator[Draft]:
    try:
        entries = _entries(found)
    except _Damaged as reason:
        name, version = _shown(found)
        yield _broken(PluginInfo(name=name, distribution=name, version=version, module=""), reason)
        return
    entries = [(name, module) for name, module in entries if module != "tfq_bench.host.builtin"]
    if not entries:
        return
    name, version = _shown(found)
    damage: _Damaged | None = None
    try:
        name, version = _identity(found)
        editable = _is_editable(found)
    except _Damaged as reason:
        damage = reason
    if len(entries) > MAX_ENTRIES:
        damage = _Damaged(f"It declares {len(entries):,} plugins; at most {MAX_ENTRIES} are read.")
        entries = entries[:1]
    names = [entry for entry, _ in entries]
    for entry, module in entries:
        info = PluginInfo(
            name=printable(entry, MAX_NAME),
            distribution=name,
            version=version,
            module=printable(module, MAX_NAME),
        )
        fault = damage or _entry_fault(entry, module, names.count(entry))
        if fault:
            yield _broken(info, fault)
            continue
        top = module.partition(":")[0].strip()
        code = code_version(version, top) if editable else version
        yield Draft(
            PluginInfo(name=entry, distribution=name, version=code, module=module),
        )


def _broken(info: PluginInfo, damage: _Damaged) -> Draft:
    return Draft(info, faults=[("broken", str(damage))])


def _entries(found: _Found) -> list[tuple[str, str]]:
    """Names and values of the group, empty when the distribution does not name it."""
    try:
        text = found.read_text("entry_points.txt")
    except ValueError as error:
        if not _may_be_ours(found):
            return []
        raise _Damaged(f"Its entry_points.txt is damaged: {error}. Reinstall it.") from None
    if text is None or GROUP not in text:
        return []
    entries, section = [], ""
    for number, line in enumerate(text.splitlines(), 1):
        content = line.strip()
        where = f"Its entry_points.txt is damaged: line {number}"
        if content.startswith("["):
            header = _HEADER.fullmatch(content)
            if header is None and GROUP in content:
                raise _Damaged(f"{where} should be '[{GROUP}]', found '{printable(content, 80)}'.")
            section = header[1].strip() if header else ""
        elif section == GROUP and content and not content.startswith(("#", ";")):
            name, equals, value = content.partition("=")
            if not equals:
                raise _Damaged(
                    f"{where} should be 'name = package.module', found "
                    f"'{printable(content, 80)}'. Reinstall it."
                )
            entries.append((name.strip(), value.strip()))
    return entries


def _may_be_ours(found: _Found) -> bool:
    """Whether a file that cannot be read as text names the group, or cannot be read at all."""
    folder = getattr(found.distribution, "_path", None)
    if not isinstance(folder, Path):
        return GROUP in canonical_name(found.stem).replace("-", "_")
    path = folder / "entry_points.txt"
    try:
        if not path.is_file():
            return True
        with path.open("rb") as file:
            return GROUP.encode() in file.read(16 * MAX_BYTES).replace(b"\0", b"")
    except OSError:
        return True


def _identity(found: _Found) -> tuple[str, str]:
    """Name and version as the metadata state them."""
    for filename in ("METADATA", "PKG-INFO"):
        try:
            text = found.read_text(filename)
        except ValueError as error:
            raise _Damaged(f"Its {filename} is damaged: {error}. Reinstall it.") from None
        if text:
            break
    else:
        raise _Damaged("It has no METADATA; it was installed or removed in part. Reinstall it.")
    header = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
    values = []
    for key, pattern, form in (
        ("Name", _NAME, "letters, digits, '.', '-' and '_'"),
        ("Version", _VERSION, "a version of PEP 440 such as 1.2.0"),
    ):
        lines = re.findall(rf"(?mi)^{key}[ \t]*:[ \t]*(.*?)[ \t\r]*$", header)
        if not lines or not lines[0]:
            raise _Damaged(f"Its {filename} has no {key}. Reinstall it.")
        if len(lines[0]) > MAX_NAME or not pattern.fullmatch(lines[0]):
            shown = printable(lines[0], 80)
            raise _Damaged(f"Its {filename}: {key} should be {form}, found '{shown}'.")
        values.append(lines[0])
    name, version = values
    if not canonical_name(found.stem).startswith(canonical_name(name)):
        raise _Damaged(
            f"Its {filename} is that of '{name}', its folder that of '{_shown(found)[0]}'. "
            "Reinstall it."
        )
    if found.twins:
        others = " and ".join(printable(twin, MAX_NAME) for twin in (found.stem, *found.twins))
        raise _Damaged(
            f"It is installed more than once in one folder ({others}), so that nobody knows which "
            "of them runs. Uninstall it until pip finds nothing, then install it once."
        )
    return name, version


def _shown(found: _Found) -> tuple[str, str]:
    """Name and version as the folder is called, for messages."""
    name, _, version = found.stem.partition("-")
    return printable(name, MAX_NAME) or "unknown", printable(version, MAX_NAME) or "unknown"


def _is_editable(found: _Found) -> bool:
    try:
        return is_editable(found)
    except ValueError as error:
        raise _Damaged(f"Its direct_url.json is damaged: {error}. Reinstall it.") from None


def _entry_fault(entry: str, module: str, times: int) -> _Damaged | None:
    if not entry or len(entry) > MAX_NAME or printable(entry, MAX_NAME) != entry:
        shown = printable(entry, 80)
        return _Damaged(
            f"Its entry point's name should be one line of 1 to {MAX_NAME} printable characters, "
            f"found '{shown}'."
        )
    if not _MODULE.fullmatch(module.partition(":")[0].partition("[")[0].strip()):
        return _Damaged(
            f"Its entry point should name a module, such as 'my_package.plugin', found "
            f"'{printable(module, 80)}'."
        )
    if times > 1:
        return _Damaged(f"Its entry_points.txt names '{entry}' {times} times.")
    return None
