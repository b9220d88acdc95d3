"""Where the distributions of this repository are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def distributions() -> list[Path]:
    """Folders that have a `pyproject.toml`: the host first, then reports, plugins, baselines.

    By name, not as the disk lists them: what runs last decides how long a worker of pytest waits
    for the other, and the longest files, in tfq-bench-cuda and tfq-bench-diffusers, must not.
    """
    plugins, baselines = (sorted(ROOT.glob(f"{kind}/*")) for kind in ("plugins", "baselines"))
    found = [ROOT, ROOT / "reports", *plugins, *baselines]
    return [folder for folder in found if (folder / "pyproject.toml").is_file()]
