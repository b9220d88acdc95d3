"""A run of a suite with a metric of any source."""

import pytest

from tfq_bench.cli import main
from tfq_bench.store.run import RunFolder

pytest.register_assert_rewrite(f"{__package__}.one_bad_metric")


@pytest.fixture
def run(plugin_host, tiny_suite, tmp_path, capfd):
    """A function that runs a suite with a metric of this source: exit code, output, records."""

    def call(text, *arguments, metrics=("mine", "paired", "bits"), **options):
        plugin_host.install("mine", text)
        folder = tmp_path / "run"
        suite = tiny_suite(metrics=metrics, **options)
        code = main(["run", str(suite), "--run", str(folder), "--no-report", *arguments])
        shown = capfd.readouterr()
        assert "Traceback" not in shown.out + shown.err
        return code, shown.out, RunFolder(folder).records()

    return call
