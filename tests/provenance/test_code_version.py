"""Results of edited code are not taken for those of the code before."""

import importlib
import json
from importlib.metadata import Distribution

import pytest

from tfq_bench.provenance.code_version import code_version, is_editable


class Installed(Distribution):
    """A distribution of which only `direct_url.json` is known."""

    def __init__(self, origin):
        self._origin = origin

    def read_text(self, filename):
        """The content of that file, None for any other."""
        return self._origin if filename == "direct_url.json" else None

    def locate_file(self, path):
        """Nowhere."""
        raise NotImplementedError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of a package `edited` that can be found."""
    folder = tmp_path / "edited"
    (folder / "inner").mkdir(parents=True)
    for name in ("__init__.py", "plugin.py", "inner/method.py"):
        (folder / name).write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return folder


@pytest.mark.parametrize("change", ["edit", "add", "rename"])
def test_a_change_of_any_file_moves_it(package, change):
    """Also of files that the plugin's own module does not import."""
    before = code_version("1.0", "edited.plugin")
    assert before.startswith("1.0+code.")
    assert before == code_version("1.0", "edited.plugin")
    method = package / "inner" / "method.py"
    if change == "edit":
        method.write_text("x = 2\n")
    elif change == "add":
        (package / "more.py").write_text("")
    else:
        method.rename(method.with_name("other.py"))
    assert before != code_version("1.0", "edited.plugin")


def test_what_is_no_code_does_not_count(package):
    """Compiled files and data come and go; data counts through digests of its own."""
    before = code_version("1.0", "edited.plugin")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "plugin.pyc").write_text("bytes")
    (package / "weights.bin").write_text("data")
    assert before == code_version("1.0", "edited.plugin")


def test_a_single_module_counts(package):
    """A plugin may be one file."""
    (package.parent / "single_file.py").write_text("x = 1\n")
    importlib.invalidate_caches()
    before = code_version("1.0", "single_file")
    (package.parent / "single_file.py").write_text("x = 2\n")
    assert before != code_version("1.0", "single_file")


def test_a_module_that_is_not_there_has_its_version():
    """Whoever imports it says what is wrong."""
    assert "1.0" == code_version("1.0", "no_such_package.plugin")


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ({"url": "file:///src", "dir_info": {"editable": True}}, True),
        ({"url": "file:///src", "dir_info": {}}, False),
        ({"url": "https://example.org/a.whl", "archive_info": {}}, False),
        (None, False),
    ],
)
def test_editable_is_what_pip_says(origin, expected):
    """PEP 610; a package from an index has no such file."""
    assert expected == is_editable(Installed(None if origin is None else json.dumps(origin)))
