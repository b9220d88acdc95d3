"""Where the distributions of this repository are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def distributions() -> list[Path]:
    """Folders that have a `pyproject.toml`: the host first, then reports, plugins, baselines."""
    found = [ROOT, *ROOT.glob("reports"), *ROOT.glob("plugins/*"), *ROOT.glob("baselines/*")]
    return [folder for folder in found if (folder / "pyproject.toml").is_file()]
