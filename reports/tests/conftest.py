"""A synthetic run and the text of its report."""

from types import SimpleNamespace

import pytest

from tfq_bench.testing.plugin_host import plugin_host
from tfq_bench_reports.renderer import HtmlRenderer

from .synthetic_cells import CELLS, Spec, metric, sampled
from .synthetic_run import write_run

__all__ = ["plugin_host"]


@pytest.fixture(scope="session")
def synthetic():
    """The generator of synthetic runs: `write_run`, `Spec`, `CELLS`, `metric`."""
    return SimpleNamespace(
        write_run=write_run, Spec=Spec, CELLS=CELLS, metric=metric, sampled=sampled
    )


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The synthetic run."""
    return write_run(tmp_path_factory.mktemp("run") / "synthetic")


@pytest.fixture(scope="session")
def html(run, tmp_path_factory):
    """The text of its report."""
    target = tmp_path_factory.mktemp("report") / "report.html"
    HtmlRenderer().render([run.path], target)
    return target.read_text("utf-8")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Hostile text that was logged or printed does not stop pytest-xdist, which sends UTF-8."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report
