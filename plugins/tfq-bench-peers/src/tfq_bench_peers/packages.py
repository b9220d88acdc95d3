"""Which tools are installed: their versions, or a sentence with the command that installs them."""

from __future__ import annotations

import importlib.metadata

from tfq_bench.api import LoweringError

__all__ = ["installed"]


def installed(extra: str, *names: str) -> tuple[str, ...]:
    """`name==version` of distributions; none of them is imported.

    Args:
        extra: of this distribution, which requires them.

    Raises:
        LoweringError: one is not there; names it and the command.
    """
    versions, missing = [], []
    for name in names:
        try:
            versions.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"'{name}'")
    if missing:
        some = "the package" if len(missing) == 1 else "the packages"
        raise LoweringError(
            f"it needs {some} {' and '.join(missing)}, not installed here: "
            f"pip install 'tfq-bench-peers[{extra}]'."
        )
    return tuple(versions)
