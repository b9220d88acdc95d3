"""`tfq-bench assets`, and what `plan` and `run` say of missing assets."""

import json

import pytest

from tfq_bench.cli import main


@pytest.fixture
def call(asset_plugin, tiny_suite, capsys):
    """Runs the command with `sharp` installed; `SUITE` stands for a suite that uses it."""
    asset_plugin()
    suite = str(tiny_suite(metrics=("bits", "sharp")))

    def run(*arguments, expect=0):
        assert expect == main([suite if word == "SUITE" else word for word in arguments])
        return capsys.readouterr()

    return run


def test_the_list_shows_what_is_there(call, web):
    """Of all plugins, with size, licence and digest; listing fetches nothing."""
    found = {line.split()[0]: line for line in call("assets", "list").out.splitlines() if line}
    line = found["weights.bin"]
    for word in ("missing", "11 B", "pinned", "MIT", "metric 'sharp'"):
        assert word in line
    assert "inception-2015-12-05.pt" in found
    assert [] == web.asked


def test_the_list_of_a_suite_is_short(call):
    """Only what it needs, where it comes from, and the command."""
    out = call("assets", "list", "SUITE").out
    assert "inception" not in out
    assert "weights.bin: the sharp weights (http://127.0.0.1:" in out
    assert "tiny.toml'" in out.splitlines()[-1]


def test_the_list_for_scripts(call, asset_folder):
    """Everything that is known, before and after fetching."""
    (before,) = json.loads(call("assets", "list", "SUITE", "--json").out)
    assert ("missing", None, 11) == (before["state"], before["path"], before["size"])
    call("assets", "fetch", "weights.bin")
    (after,) = json.loads(call("assets", "list", "SUITE", "--json").out)
    assert ("present", str(asset_folder / "weights.bin")) == (after["state"], after["path"])


def test_plan_and_run_say_what_is_missing_and_do_nothing(call, tmp_path, web):
    """Before any work, with the command; then the same suite runs."""
    for verb in (["plan"], ["run", "--no-report"]):
        told = call(*verb, "SUITE", "--run", str(tmp_path / "run"), expect=2).err
        assert "  weights.bin: the sharp weights (http://127.0.0.1:" in told
        assert "'tfq-bench assets fetch weights.bin'" in told
        assert not (tmp_path / "run").exists()
    assert [] == web.asked
    call("assets", "fetch", "--suite", "SUITE")
    assert "tiny / rtn W8A8" in call("plan", "SUITE", "--run", str(tmp_path / "run")).out
    assert ["/weights.bin"] == web.asked


def test_a_check_of_a_suite_fails_until_all_is_there(call):
    """Exit 2 with the command, then 0."""
    told = call("assets", "check", "SUITE", expect=2).out
    assert told.startswith("weights.bin: missing\n")
    assert "tfq-bench assets fetch --suite" in told
    call("assets", "fetch", "--suite", "SUITE")
    assert "weights.bin: ok\n" == call("assets", "check", "SUITE").out


def test_a_check_of_everything_misses_nothing(call):
    """Nobody needs all that plugins know of."""
    assert "weights.bin: missing" in call("assets", "check").out


def test_damage_is_found_and_repaired(call, asset_folder):
    """By a check of everything too; fetching again replaces the file."""
    call("assets", "fetch", "weights.bin")
    (asset_folder / "weights.bin").write_text("eleven what")
    told = call("assets", "check", expect=2).out
    assert "weights.bin: damaged: expected the SHA-256" in told
    (found,) = json.loads(call("assets", "check", "SUITE", "--json", expect=2).out)
    assert "damaged" == found["state"]
    assert found["fault"].startswith("expected the SHA-256")
    call("assets", "fetch", "weights.bin")
    assert "weights.bin: ok" in call("assets", "check").out


def test_fetching_twice_downloads_once(call, web):
    """What is there and whole is left alone."""
    first = call("assets", "fetch", "weights.bin").out
    assert "licence MIT" in first
    assert "(as expected)" in first
    assert "weights.bin: already at" in call("assets", "fetch", "weights.bin").out
    assert ["/weights.bin"] == web.asked


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["weigths.bin"], "no asset is called 'weigths.bin'; did you mean 'weights.bin'"),
        (["inception-2015-12-05.pt", "--suite", "SUITE"], "no asset of suite"),
        ([], "name what to fetch, or a suite with --suite"),
    ],
)
def test_what_cannot_be_fetched(call, words, sentence):
    """Exit 2 and a sentence."""
    assert sentence in call("assets", "fetch", *words, expect=2).err


def test_a_suite_that_needs_nothing(call, tiny_suite, capsys):
    """It says so, whatever is asked."""
    suite = str(tiny_suite(metrics=("bits",)))
    for words in (["list", suite], ["check", suite], ["fetch", "--suite", suite]):
        assert "Nothing is needed" in call("assets", *words).out
