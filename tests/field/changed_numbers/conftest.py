"""One tiny run, which is the truth, and copies of it to be damaged."""

import shutil
from types import SimpleNamespace

import pytest

import tfq_bench
from tfq_bench.cli import main

from .answers import RULES, gate, rows

_made = {}


@pytest.fixture
def truth(tiny_suite, tmp_path, tmp_path_factory):
    """A finished run, its baseline, rules, and what the gate says of them; made once."""
    if not _made:
        assert 0 == main(["run", str(tiny_suite()), "--run", str(tmp_path / "r"), "--no-report"])
        home = tmp_path_factory.mktemp("truth")
        shutil.copytree(tmp_path / "r", home / "run")
        assert 0 == main(["baseline", "save", str(home / "run"), "-o", str(home / "base.json")])
        (home / "rules.toml").write_text(RULES)
        found = SimpleNamespace(home=home, run=home / "run")
        found.lines = (found.run / "records.jsonl").read_bytes()
        found.gate = gate(home)
        found.rows = rows(tfq_bench.load_records(found.run))
        assert 0 == found.gate[0]
        _made["truth"] = found
    return _made["truth"]


@pytest.fixture
def copy(truth, tmp_path):
    """A copy of the truth that a test may damage."""
    shutil.copytree(truth.home, tmp_path / "copy")
    return tmp_path / "copy"
