"""`tfq-bench plugins list` shows every provider and every fault."""

import json

import pytest

from tfq_bench.cli import main


@pytest.fixture
def installed(plugin_host):
    """The tiny model and a plugin that cannot be imported."""
    plugin_host.install("tiny", "tfq_bench.testing.tiny_plugin", distribution="tiny-dist")
    plugin_host.install("bad", "import no_such_module", distribution="bad-dist", version="0.3")


def test_table_has_a_line_per_provider_and_the_reasons(installed, capsys):
    """Kind, name, distribution, version, API and status stand in one line."""
    assert 0 == main(["plugins", "list"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["kind", "name", "provided", "by", "API", "status"] == lines[0]
    assert ["model", "tiny", "tiny-dist", "1.0", "1", "ok"] in lines
    assert ["plugin", "bad", "bad-dist", "0.3", "-", "broken"] in lines
    assert "No module named 'no_such_module'" in " ".join(lines[-1])


def test_json_of_the_broken_ones(installed, capsys):
    """Scripts get every field, restricted to plugins with faults."""
    assert 0 == main(["plugins", "list", "--json", "--broken"])
    (plugin,) = json.loads(capsys.readouterr().out)
    assert ("bad", "bad-dist", "0.3", "broken") == (
        plugin["plugin"],
        plugin["distribution"],
        plugin["version"],
        plugin["status"],
    )


@pytest.mark.parametrize(
    "argv",
    [
        ["--block", "bad", "plugins", "list"],
        ["plugins", "list", "--block", "bad-dist"],
    ],
)
def test_blocking_flags_work_before_and_after_the_verb(installed, capsys, argv):
    """What is blocked is shown as blocked."""
    assert 0 == main(argv)
    assert "bad (bad-dist 0.3) is blocked" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv", [["--no-plugins", "plugins", "list"], ["plugins", "list", "--no-plugins"]]
)
def test_without_plugins_only_the_built_in_is_listed(installed, capsys, argv):
    """What is installed is not even looked at."""
    assert 0 == main(argv)
    assert not {"tiny-dist", "bad-dist"} & set(capsys.readouterr().out.split())


def test_blocking_lasts_for_one_command(installed, capsys, monkeypatch):
    """The flags leave the process's environment as it was."""
    assert 0 == main(["--no-plugins", "plugins", "list"])
    capsys.readouterr()
    assert 0 == main(["plugins", "list"])
    assert "tiny-dist 1.0 1 ok" in " ".join(capsys.readouterr().out.split())
