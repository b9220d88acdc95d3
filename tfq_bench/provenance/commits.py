"""The commit of a repository that a folder lies in, as git says it."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["COMMIT", "Commit", "bisect_commands", "commit_of", "has_commit"]

COMMIT = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit.

    Args:
        name: hexadecimal.
        edited: True when tracked files differ from it.
    """

    name: str
    edited: bool = False


def commit_of(folder: Path) -> Commit | None:
    """The commit that is checked out where `folder` lies.

    Returns:
        None where that is no repository, has no commit, or git is not installed.
    """
    name = _git(folder, "rev-parse", "--verify", "HEAD")
    if name is None or not COMMIT.fullmatch(name):
        return None
    return Commit(name=name, edited=bool(_git(folder, "status", "--porcelain", "-uno")))


def has_commit(folder: Path, name: str) -> bool:
    """Whether the repository at `folder` holds the commit."""
    return _git(folder, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}") is not None


def bisect_commands(folder: Path, good: str, bad: str, command: str) -> list[str]:
    """Shell commands that find the first bad commit after `good`, for a person to run.

    Args:
        command: ends with 0 at a good commit, with 1 at a bad one; any other code skips it, since
            `git bisect run` takes nearly all of them for bad.
    """
    judge = f"{command}; case $? in 0) exit 0;; 1) exit 1;; *) exit 125;; esac"
    git = f"git -C {shlex.quote(str(folder))} bisect"
    return [f"{git} start {bad} {good}", f"{git} run sh -c {shlex.quote(judge)}", f"{git} reset"]


def _git(folder: Path, *words: str) -> str | None:
    """What git prints, None when it fails; a repository's own programs are not run."""
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *words]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=60, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
