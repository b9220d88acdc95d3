"""Builds wheels of every distribution, installs them into an empty environment, runs a tiny suite.

    python .ci/clean_install.py FOLDER

Empty means: a new virtual environment that holds what the wheels' metadata require, directly or
through others, and nothing else; no checkout, no editable install, no test tools. A dependency
that is imported but not declared is therefore missing. What is required is not downloaded again
(torch is 5 GB): its files are hard links to those of the environment that runs this script.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from distributions import distributions
from packaging.metadata import parse_email
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SUITE = """\
schema = 1

[suite]
name = "installed"
threads = 1

[sampling]
steps = 2
images = 4
batch = 2
shard = 2

[calibration]
images = 2
batch = 2

[timing]
batch = 1
warmup = 0
rounds = 3

[[model]]
name = "cifar10"

[[quantizer]]
name = "fp"

[[quantizer]]
name = "rtn"
wbits = [8]
abits = 8

[[backend]]
name = "simulate"

[[backend]]
name = "cpu"
optional = true

[[backend]]
name = "openvino"
optional = true

[[metric]]
name = "frechet"
replicates = 5

[[metric]]
name = "paired"

[[metric]]
name = "bits"

[[metric]]
name = "timing"
"""


def main(folder: Path) -> None:
    """Does it all in `folder`, which is emptied first; CalledProcessError when a step fails."""
    shutil.rmtree(folder, ignore_errors=True)
    wheels = folder / "wheels"
    sources = distributions()
    say(f"building {len(sources)} wheels: {', '.join(source.name for source in sources)}")
    # One process for all of them; the build backend is that of the environment, nothing is fetched.
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    run(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", wheels, *sources)
    say("making an empty environment of what the wheels require")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    built = sorted(wheels.glob("*.whl"))
    site = Path(output(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    needed = required(built)
    for found in needed:
        link(found, site)
    say(f"linked {len(needed)} distributions; installing {len(built)} wheels")
    # No index: what the metadata require but the environment lacks is an error, not a download.
    run(python, "-m", "pip", "install", "--quiet", "--no-index", *built)
    run(python, "-m", "pip", "check")
    suite(folder, python.with_name("tfq-bench"))
    say("passed")


def suite(folder: Path, command: Path) -> None:
    """Lists plugins, plans packaged suites, then runs the tiny one twice, and renders it."""
    work = folder / "work"
    work.mkdir()
    (work / "installed.toml").write_text(SUITE, "utf-8")
    run(command, "plugins", "list", cwd=work)
    faulty = output(command, "plugins", "list", "--broken", "--json", cwd=work)
    if faulty != "[]":
        raise SystemExit(f"expected every plugin to be ok, found {faulty}")
    run(command, "plugins", "new", "metric", "of-my-own", cwd=work)  # its templates are no code
    run(command, "plan", "quickstart", cwd=work)
    run(command, "plan", "peers", cwd=work)  # none of its tools is here: sentences, no traceback
    run(command, "run", "installed.toml", cwd=work)
    report = work / "runs" / "installed" / "report.html"
    records = work / "runs" / "installed" / "records.jsonl"
    if not report.is_file():
        raise SystemExit(f"expected a report at {report}, found none")
    before = records.read_bytes()
    run(command, "run", "installed.toml", cwd=work)
    if before != records.read_bytes():
        raise SystemExit("expected the second run to add nothing, found other records")


def required(wheels: list[Path]) -> list[Distribution]:
    """What the wheels require, directly or not, as installed beside this script."""
    own = {canonicalize_name(wheel.name.split("-")[0]) for wheel in wheels}
    todo = [requirement for wheel in wheels for requirement in declared(wheel)]
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        requirement = todo.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if name in own or (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(f"'{requirement}' is required, and is not installed") from None
        todo += [
            r for text in found[name].requires or () if applies(r := Requirement(text), extras)
        ]
    return list(found.values())


def declared(wheel: Path) -> list[Requirement]:
    """What the metadata of a wheel require on this machine, extras left out."""
    name, version = wheel.name.split("-")[:2]
    with zipfile.ZipFile(wheel) as archive:
        raw, _ = parse_email(archive.read(f"{name}-{version}.dist-info/METADATA"))
    return [r for line in raw.get("requires_dist", ()) if applies(r := Requirement(line))]


def applies(requirement: Requirement, extras: frozenset[str] = frozenset()) -> bool:
    """Whether a requirement holds here, for any of the extras or without one."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras})


def link(found: Distribution, site: Path) -> None:
    """Hard links of an installed distribution's importable files below `site`."""
    for file in found.files or ():
        source = Path(str(found.locate_file(file)))
        # Not commands ('../../bin/x'): nothing here calls them. Not bytecode: it may be stale.
        if ".." in file.parts or file.suffix == ".pyc" or not source.is_file():
            continue
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.link(source, target)


def run(*command: str | Path, cwd: Path | None = None) -> None:
    """Runs a command away from the checkout's modules; raises when it fails."""
    subprocess.run(command, cwd=cwd, env=environment(), check=True)


def output(*command: str | Path, cwd: Path | None = None) -> str:
    """What a command prints, stripped; raises when it fails."""
    options = {"cwd": cwd, "env": environment(), "check": True, "text": True}
    return subprocess.run(command, stdout=subprocess.PIPE, **options).stdout.strip()


def environment() -> dict[str, str]:
    """This process's environment without what could lead Python back to the checkout."""
    return {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}


def say(text: str) -> None:
    """Prints a line at once."""
    print(f"clean-install: {text}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
