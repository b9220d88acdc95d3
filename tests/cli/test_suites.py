"""`tfq-bench suites` lists what is packaged and prints it as it is."""

import json

from tfq_bench.cli import main
from tfq_bench.plan.suite import load_suite, packaged_suites


def test_every_packaged_suite_is_listed(capsys):
    """For people and for scripts."""
    assert 0 == main(["suites", "list"])
    lines = capsys.readouterr().out.splitlines()
    assert ["suite", "device", "images", "what", "it", "shows"] == lines[0].split()
    assert list(packaged_suites()) == [line.split()[0] for line in lines[2:]]
    assert 0 == main(["suites", "list", "--json"])
    (quickstart,) = [
        suite for suite in json.loads(capsys.readouterr().out) if suite["name"] == "quickstart"
    ]
    assert {"name", "summary", "device", "images"} == quickstart.keys()


def test_a_suite_is_printed_as_it_is(capsys, tmp_path):
    """What is printed is a suite file."""
    assert 0 == main(["suites", "show", "quickstart"])
    file = tmp_path / "mine.toml"
    file.write_text(capsys.readouterr().out)
    assert load_suite("quickstart").text == load_suite(str(file)).text


def test_an_unknown_suite_is_refused(capsys):
    """With the nearest name."""
    assert 2 == main(["suites", "show", "quikstart"])
    assert "did you mean 'quickstart'" in capsys.readouterr().err
