"""Installed distributions as results depend on them: who owns a package, in which version."""

from __future__ import annotations

import importlib.metadata
import json
import re
from functools import lru_cache
from importlib.metadata import Distribution
from pathlib import Path

__all__ = ["canonical_name", "owners", "required_versions", "version_of"]

_TOP = re.compile(r'^"?([^/.,"\r\n]+)', re.MULTILINE)
"""The first part of a file's name in RECORD, or a line of top_level.txt"""


def owners(folder: Path, top: str) -> list[Distribution]:
    """The distributions in a folder that say a package there is theirs."""
    return [one for one, tops in _records(folder) if top in tops]


def _records(folder: Path) -> list[tuple[Distribution, frozenset[str]]]:
    try:
        return _records_at(folder, folder.stat().st_mtime_ns)
    except OSError:
        return []


@lru_cache(maxsize=64)
def _records_at(
    folder: Path,
    mtime: int,  # noqa: ARG001  (part of the cache's key)
) -> list[tuple[Distribution, frozenset[str]]]:
    """The distributions in a folder, with the first parts of the names of their files."""
    found = []
    for one in importlib.metadata.distributions(path=[str(folder)]):
        try:
            text = one.read_text("RECORD") or one.read_text("top_level.txt") or ""
        except Exception:  # damaged metadata owns nothing
            text = ""
        found.append((one, frozenset(_TOP.findall(text))))
    return found


def version_of(one: Distribution) -> tuple[str, str]:
    """Name and version, with the digest of a wheel that came from no index.

    The version is empty where it says nothing about the code: an installation from a folder or a
    repository, or damaged metadata.
    """
    try:
        name, version = canonical_name(one.metadata["Name"]), one.version
        origin = json.loads(one.read_text("direct_url.json") or "{}")
        if "dir_info" in origin or "vcs_info" in origin:
            return name, ""
        return name, f"{version} {origin.get('archive_info', {}).get('hash', '')}".strip()
    except Exception:
        return str(one), ""


def required_versions(distribution: str) -> dict[str, str]:
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
            found[canonical_name(name[0])] = importlib.metadata.version(name[0])
        except Exception:
            continue
    return found


def canonical_name(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
