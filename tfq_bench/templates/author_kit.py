"""A distribution with one plugin, made of the templates of its kind."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from string import Template

__all__ = ["KINDS", "Kind", "Mark", "PluginNames", "marks", "rendered"]

PREFIX = "tfq-bench-"
"""Distributions may begin with it; what suites call the component does not."""

SUFFIX = ".tmpl"
"""Of every template, so that no tool takes one for the file that it becomes."""

_MARK = re.compile(r"# (\d of 3: .*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What the templates of a kind do not say themselves.

    Args:
        requires: what the code imports beside the host.
        does: what the component does as it is written, a sentence.
        use: commands that lead to a row in a report; `{name}` is the component's.
    """

    requires: tuple[str, ...]
    does: str
    use: tuple[str, ...]


TORCH = "torch>=2.11"

_RUN = "tfq-bench run try-{name}.toml"
KINDS = {
    "quantizer": Kind(
        requires=(TORCH,),
        does="It rounds to nearest, after the range of each channel's weights was narrowed.",
        use=(
            "tfq-bench init try-{name}.toml --quantizer rtn --quantizer {name} --bits W4A8 "
            "--images 16",
            _RUN,
        ),
    ),
    "model": Kind(
        requires=(TORCH,),
        does="It is a small U-Net with random weights: its images show nothing yet.",
        use=("tfq-bench init try-{name}.toml --model {name} --images 16", _RUN),
    ),
    "backend": Kind(
        requires=(),
        does="It computes every layer in float arithmetic on the integers of the state.",
        use=(
            "tfq-bench init try-{name}.toml --quantizer rtn --backend {name} --images 16",
            _RUN,
        ),
    ),
    "metric": Kind(
        requires=("numpy>=1.26",),
        does="It is the share of pixels that differ visibly from full precision.",
        use=("tfq-bench init try-{name}.toml --metric {name} --images 16", _RUN),
    ),
    "executor": Kind(
        requires=(),
        does="It runs one task after another, and logs how long each took (`--debug` shows it).",
        use=(
            "tfq-bench init try-{name}.toml --quantizer rtn --images 16",
            f"{_RUN} --executor {{name}}",
        ),
    ),
    "renderer": Kind(
        requires=("pandas>=2.2",),
        does="It writes a Markdown table with every number of a run.",
        use=(
            "tfq-bench init try-{name}.toml --quantizer rtn --images 16",
            _RUN,
            "tfq-bench report runs/try-{name} --renderer {name}",
        ),
    ),
}
"""The kinds of plugins, in the order in which a suite meets them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginNames:
    """The names that follow from that of a distribution.

    Args:
        kind: one of `KINDS`.
        distribution: lower-case letters, digits and single hyphens.
    """

    kind: str
    distribution: str

    @property
    def package(self) -> str:
        """What is imported: `my-metric` is `my_metric`."""
        return self.distribution.replace("-", "_")

    @property
    def name(self) -> str:
        """What suites call the component: `tfq-bench-sharpness` offers `sharpness`."""
        return self.distribution.removeprefix(PREFIX)

    @property
    def component(self) -> str:
        """The class: `sharpness` and `sharpness-metric` are a `SharpnessMetric`."""
        words = self.name.removesuffix(self.kind).strip("-").split("-")
        return "".join(word.capitalize() for word in [*words, self.kind])

    @property
    def install(self) -> tuple[str, ...]:
        """Commands that install the distribution and test it, from the folder around it."""
        return (
            f"pip install -e '{self.distribution}[test]'",
            f"pytest {self.distribution}",
            "tfq-bench plugins list",
        )

    @property
    def use(self) -> tuple[str, ...]:
        """Commands that lead to a row in a report."""
        return tuple(line.format(name=self.name) for line in KINDS[self.kind].use)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A place that an author changes: `text` begins with its number, as `1 of 3: `."""

    file: str
    line: int
    text: str


def rendered(names: PluginNames) -> dict[str, str]:
    """The text of each file of the distribution, by its path in it, sorted."""
    folder = resources.files("tfq_bench.templates") / "plugin"
    found = {**_below(folder / "every"), **_below(folder / names.kind)}
    kind = KINDS[names.kind]
    values = {
        "kind": names.kind,
        "distribution": names.distribution,
        "package": names.package,
        "name": names.name,
        "component": names.component,
        "does": kind.does,
        "dependencies": ", ".join(f'"{one}"' for one in ("tfq-bench>=0.1", *kind.requires)),
        "install": "\n".join(names.install),
        "use": "\n".join(names.use),
    }
    code = {
        path.replace("PACKAGE", names.package): Template(text).substitute(values, marks="")
        for path, text in found.items()
    }
    lines = (f"{mark.text[0]}. `{mark.file}`: {mark.text[8:]}" for mark in marks(code))
    values["marks"] = "\n".join(lines)
    code["README.md"] = Template(found["README.md"]).substitute(values)
    return dict(sorted(code.items()))


def marks(files: dict[str, str]) -> tuple[Mark, ...]:
    """The places that an author changes, in their order; `files` as `rendered` returns them."""
    found = [
        Mark(file=path, line=number, text=match[1])
        for path, text in files.items()
        if path.endswith(".py")
        for number, line in enumerate(text.splitlines(), start=1)
        if (match := _MARK.search(line))
    ]
    return tuple(sorted(found, key=lambda mark: mark.text))


def _below(folder: Traversable, path: str = "") -> dict[str, str]:
    """The text of the templates in a folder, by the path that they become, which begins so."""
    found: dict[str, str] = {}
    for item in folder.iterdir():
        if item.is_dir():
            found |= _below(item, f"{path}{item.name}/")
        elif item.name.endswith(SUFFIX):
            found[f"{path}{item.name.removesuffix(SUFFIX)}"] = item.read_text("utf-8")
    return found
