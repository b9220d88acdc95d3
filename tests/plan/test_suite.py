"""Suites are read whole or refused with a sentence; the JSON schema says the same."""

import copy
import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from tfq_bench.cli import main
from tfq_bench.errors import SuiteError
from tfq_bench.plan import suite
from tfq_bench.plan.suite import load_suite, packaged_suites, parse_suite
from tfq_bench.plan.suite_format import json_schema

SMALL = {
    "schema": 1,
    "suite": {"name": "small"},
    "model": [{"name": "tiny"}],
    "quantizer": [{"name": "fp"}],
    "metric": [{"name": "bits"}],
}
FULL = {
    "schema": 1,
    "seeds": [0, 3],
    "suite": {"name": "full-1.0", "summary": "All.", "device": "cuda", "threads": 4},
    "sampling": {"sampler": "ddim", "steps": 5, "images": 9, "batch": 2, "shard": 4, "seed": 7},
    "calibration": {"images": 3, "batch": 2, "seed": 5},
    "timing": {"batch": 2, "warmup": 0, "rounds": 3},
    "model": [{"name": "tiny", "weights_seed": 1}],
    "quantizer": [{"name": "rtn", "wbits": [8, 4]}],
    "backend": [{"name": "cpu", "optional": True}],
    "metric": [{"name": "frechet", "k": 0.5}],
    "exclude": [{"model": "t*", "scheme": "W4*", "reason": "slow"}],
}
ODD = (0, 1, -1, 2.5, True, "", "x", "../x", [], [0, 1], [1, 1], [True], {}, {"name": "x"})
ODD += ([{}], [{"name": "x"}], [{"name": 1}], [{"reason": "r"}], [{"model": "x", "reason": "r"}])


def toml(value):
    """`value` as TOML; tables are written inline below the top."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def document(data):
    """A TOML document."""
    return "\n".join(f"{key} = {toml(value)}" for key, value in data.items())


def parse(data):
    """The suite of a document that is given as a dictionary."""
    return parse_suite(document(data), "s.toml", Path())


def places(data):
    """Every (container, key) in nested data."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        yield data, key
        if isinstance(value, dict | list):
            yield from places(value)


def variants():
    """FULL, and FULL with one value replaced, one key removed or one key added."""
    yield FULL
    for number, (container, key) in enumerate(places(FULL)):
        for odd in ODD:
            changed = copy.deepcopy(FULL)
            place, _ = list(places(changed))[number]
            place[key] = odd
            yield changed
        changed = copy.deepcopy(FULL)
        place, _ = list(places(changed))[number]
        del place[key]
        yield changed
        if isinstance(container, dict):
            changed = copy.deepcopy(FULL)
            place, _ = list(places(changed))[number]
            place["unknown"] = 1
            yield changed


def test_defaults_fill_what_is_not_written():
    """Four tables and the schema number are enough; everything else has a value."""
    spec = parse(SMALL)
    assert ("small", "cpu", 2, (0,)) == (spec.name, spec.device, spec.threads, spec.seeds)
    assert {"sampler", "steps", "images", "batch", "shard", "seed"} == set(spec.sampling)
    assert {"images": 32, "batch": 16, "seed": 1} == spec.calibration
    assert {"batch": 8, "warmup": 2, "rounds": 9} == spec.timing
    assert () == spec.backends == spec.excludes


def test_everything_written_arrives():
    """Tables, entries with their own options, seeds and exclusions are as in the file."""
    spec = parse(FULL)
    assert ("full-1.0", "cuda", 4, (0, 3)) == (spec.name, spec.device, spec.threads, spec.seeds)
    assert FULL["sampling"] == spec.sampling
    assert ("rtn", {"wbits": [8, 4]}) == (spec.quantizers[0].name, spec.quantizers[0].given)
    assert ("cpu", True, {}) == (
        spec.backends[0].name,
        spec.backends[0].optional,
        spec.backends[0].given,
    )
    assert ({"model": "t*", "scheme": "W4*"}, "slow") == (
        spec.excludes[0].patterns,
        spec.excludes[0].reason,
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("schema = ", "s.toml: not valid TOML: "),
        ("a = 1\na = 2", "s.toml: not valid TOML: "),
        (f"schema = {'1' * 5000}", "s.toml: not valid TOML: "),
        ("schema = " + "[" * 5000, "s.toml: its tables are nested more than 16 levels deep"),
        ("a." * 20 + "b = 1", "s.toml: its tables are nested more than 16 levels deep"),
        ("# " + "x" * 200_000, "s.toml: it has more than 131,072 bytes"),
        ("", "expected 'schema = 1' at the top, found no such key"),
    ],
)
def test_text_that_is_no_suite(text, sentence):
    """Whatever is wrong with the text, the file is named and the parser's reason given."""
    with pytest.raises(SuiteError) as caught:
        parse_suite(text, "s.toml", Path())
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema": 2}, "s.toml: expected 'schema = 1' at the top, found 2; "),
        ({"schema": True}, "s.toml: expected 'schema = 1' at the top, found True; "),
        ({"modle": []}, "s.toml: unknown key 'modle'; did you mean 'model'"),
        (
            {"sampling": {"stps": 1}},
            "s.toml [sampling]: unknown option 'stps'; did you mean 'steps'",
        ),
        ({"sampling": {"steps": 0}}, "s.toml [sampling]: option 'steps' must lie in [1, "),
        ({"sampling": {"images": "9"}}, "option 'images' must be of type int, found '9'"),
        ({"sampling": 3}, "s.toml: 'sampling' must be a table [sampling], found 3"),
        ({"timing": {"seeds": [0]}}, "[timing]: 'seeds' belongs to the top of the file"),
        ({"suite": {}}, "s.toml [suite]: 'name' is missing; it names the run folder"),
        ({"suite": {"name": "../up"}}, "'name' names the run folder, so it must be letters, "),
        ({"suite": {"name": "n", "device": "tpu"}}, "must be one of 'cpu', 'cuda', found 'tpu'"),
        ({"model": []}, "s.toml: at least one [[model]] is needed"),
        ({"metric": {"name": "x"}}, "'metric' must be a list of tables [[metric]], found {"),
        ({"model": [{}]}, "s.toml [[model]] number 1: 'name' is missing"),
        ({"model": [{"name": 3}]}, "s.toml [[model]] number 1: 'name' must be text, found 3"),
        (
            {"backend": [{"name": "cpu", "optional": "yes"}]},
            "s.toml [[backend]] 'cpu': 'optional' must be true or false, found 'yes'",
        ),
        (
            {"backend": [{"name": "cpu", "standby": 1}]},
            "s.toml [[backend]] 'cpu': 'standby' must be true or false, found 1",
        ),
        ({"seeds": []}, "'seeds' must be a list of distinct whole numbers from 0, found []"),
        ({"seeds": [1, 1]}, "distinct whole numbers from 0, found [1, 1]"),
        ({"seeds": [True]}, "distinct whole numbers from 0, found [True]"),
        (
            {"exclude": [{"modle": "x", "reason": "r"}]},
            "s.toml [[exclude]]: unknown key 'modle'; did you mean 'model'",
        ),
        ({"exclude": [{"model": 3, "reason": "r"}]}, "[[exclude]]: 'model' must be text, found 3"),
        ({"exclude": [{"reason": "r"}]}, "[[exclude]]: a pattern and a 'reason' are needed"),
        ({"exclude": [{"model": "x"}]}, "[[exclude]]: a pattern and a 'reason' are needed"),
    ],
)
def test_wrong_content_is_refused(change, sentence):
    """The sentence says where, what was expected and what was found."""
    with pytest.raises(SuiteError) as caught:
        parse({**SMALL, **change})
    assert sentence in str(caught.value)


def test_schema_and_parser_agree():
    """A document with one thing changed is valid for the schema exactly when it can be read."""
    validator = jsonschema.Draft202012Validator(json_schema())
    accepted, disagreements = 0, []
    documents = list(variants())
    for data in documents:
        try:
            parse(data)
            readable = True
        except SuiteError:
            readable = False
        accepted += readable
        if readable != validator.is_valid(data):
            disagreements.append((readable, document(data)))
    assert [] == disagreements
    assert 50 < accepted < len(documents) - 50


def test_schema_file_is_current():
    """The file that editors read is what the options say."""
    path = Path(suite.__file__).parents[1] / "schemas" / "suite.schema.json"
    assert json_schema() == json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("name", packaged_suites())
def test_packaged_suites_are_sound(name):
    """Every suite that ships can be loaded by its name, which is also its own, and is valid."""
    spec = load_suite(name)
    assert name == spec.name
    jsonschema.Draft202012Validator(json_schema()).validate(tomllib.loads(spec.text))


def test_paths_are_relative_to_the_suite(tmp_path, monkeypatch):
    """The folder of a suite is that of its file, absolute; a packaged suite's is the current."""
    (tmp_path / "s.toml").write_text(document(SMALL), "utf-8")
    monkeypatch.chdir(tmp_path)
    assert tmp_path.resolve() == load_suite("s.toml").folder
    assert tmp_path == load_suite("quickstart").folder


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("quikstart", "no packaged suite and no file is called 'quikstart'; did you mean 'quicks"),
        ("absent.toml", "cannot read the suite absent.toml: No such file or directory."),
        (".", "cannot read the suite .: Is a directory."),
        ("x" * 300, "File name too long."),
        ("latin.toml", "cannot read the suite latin.toml: 'utf-8' codec can't decode"),
    ],
)
def test_what_cannot_be_loaded(name, sentence, tmp_path, monkeypatch):
    """No such suite and no such file are told apart, and nearest names offered."""
    (tmp_path / "latin.toml").write_bytes(b"schema = '\xff'")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SuiteError) as caught:
        load_suite(name)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_wrong_suite_ends_the_command(verb, tmp_path, monkeypatch, capsys):
    """One sentence on stderr, exit code 2, no traceback, and nothing written."""
    (tmp_path / "s.toml").write_text("schema = 1\n[sampling]\nstps = 3\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert 2 == main(["--no-plugins", verb, "s.toml"])
    printed = capsys.readouterr()
    assert "" == printed.out
    assert printed.err.startswith("tfq-bench: s.toml [sampling]: unknown option 'stps'; did you")
    assert 1 == len(printed.err.splitlines())
    assert ["s.toml"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("changed", "context"),
    [
        ({"schema": 7}, {"key": "schema", "expected": 1, "found": 7}),
        ({"samplin": {}}, {"key": "samplin"}),
        ({"seeds": [1, 1]}, {"key": "seeds", "found": "[1, 1]"}),
        (
            {"sampling": {"steps": 0}},
            {"key": "steps", "expected": "lie in [1, 10000]", "found": 0},
        ),
    ],
)
def test_errors_carry_file_key_and_values(changed, context):
    """For programs; the sentence says the same."""
    with pytest.raises(SuiteError) as caught:
        parse({**SMALL, **changed})
    known = caught.value.context.known()
    assert known.pop("file")
    assert context == known
