"""Errors become messages and exit codes; nobody sees a traceback for their own mistake."""

import errno
import json

import pytest

from tfq_bench.cli import VERBS, main
from tfq_bench.cli import plugins as verb
from tfq_bench.errors import NotComparable, SuiteError


@pytest.fixture
def failing(plugin_host, monkeypatch):
    """A function that makes the verb `plugins` raise."""

    def install(error):
        def execute(args):
            raise error

        monkeypatch.setattr(verb, "execute", execute)

    return install


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["plugin"], "unknown command 'plugin'; did you mean 'plugins' or 'plan'?"),
        (["plugins", "list", "--jsn"], "unknown option '--jsn'; did you mean '--json' or '--into'"),
        (["--blok", "x", "plugins"], "unknown option '--blok'; did you mean '--block'"),
        (["plugins", "list", "extra"], "unexpected argument 'extra'"),
        (["plugins"], "See 'tfq-bench plugins --help'"),
        ([], "a command is missing"),
    ],
)
def test_usage_errors_exit_with_2_and_the_nearest_names(plugin_host, capsys, argv, message):
    """A typing error costs one line, not a page of usage."""
    assert 2 == main(argv)
    shown = capsys.readouterr()
    assert message in shown.err
    assert "" == shown.out
    assert 1 == len(shown.err.splitlines())


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (NotComparable("other extractor"), 4, "tfq-bench: other extractor"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "", "run/x"), 2, "'run/x': no space is left"),
        (OSError(errno.ENAMETOOLONG, "", "x" * 300), 2, "x': the name is too long"),
        (OSError(errno.ENOTDIR, "", "x/y"), 2, "'x/y': a part of the path is not a folder"),
        (PermissionError(errno.EACCES, "", "run/x"), 2, "'run/x': permission was denied"),
        (OSError(errno.EROFS, "", "run/x"), 2, "'run/x': the file system is read-only"),
        (ValueError("boom"), 70, "unexpected ValueError: boom"),
        (OSError(errno.EIO, "i/o"), 70, "This is a bug in tfq-bench or a plugin"),
    ],
)
def test_errors_of_a_verb_become_messages(failing, capsys, error, code, message):
    """Known errors keep their exit code; unknown ones are called a bug; neither shows a trace."""
    failing(error)
    assert code == main(["plugins", "list"])
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


def test_debug_shows_the_traceback(failing, capsys):
    """With --debug the traceback comes before the message."""
    failing(ValueError("boom"))
    assert 70 == main(["plugins", "list", "--debug"])
    assert "Traceback" in capsys.readouterr().err


def test_reader_that_goes_away_is_quiet(failing, capsys):
    """A pipe into `head` leaves no message."""
    failing(BrokenPipeError())
    assert 141 == main(["plugins", "list"])
    assert "" == capsys.readouterr().err


def test_help_lists_every_verb(capsys):
    """Help is on standard output and succeeds."""
    assert 0 == main(["--help"])
    shown = capsys.readouterr().out
    assert [] == [name for name in VERBS if f"\n  {name} " not in shown]


def test_version(capsys):
    """The version names the tool."""
    assert 0 == main(["--version"])
    assert capsys.readouterr().out.startswith("tfq-bench 0.")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            SuiteError("s.toml: no", details=("more",), file="s.toml", expected=1, found="x"),
            {
                "kind": "SuiteError",
                "message": "s.toml: no\nmore",
                "exit_code": 2,
                "file": "s.toml",
                "expected": 1,
                "found": "x",
            },
        ),
        (
            KeyboardInterrupt(),
            {
                "kind": "KeyboardInterrupt",
                "message": "interrupted; what is finished is kept, and the same command goes on.",
                "exit_code": 130,
            },
        ),
    ],
)
def test_who_asks_for_json_gets_errors_as_json(failing, capsys, error, expected):
    """On standard output, with what is known and nothing else; the sentence stays where it was."""
    failing(error)
    assert expected["exit_code"] == main(["plugins", "list", "--json"])
    shown = capsys.readouterr()
    assert {"error": expected} == json.loads(shown.out)
    assert f"tfq-bench: {expected['message'].splitlines()[0]}" == shown.err.splitlines()[0]


@pytest.mark.parametrize(
    "argv",
    [["plan", "--json"], ["plan", "no-such", "--json"], ["compare", "--format", "json", "a"]],
)
def test_a_wrong_command_line_is_json_too(plugin_host, capsys, argv):
    """Also where the words could not be parsed."""
    assert 2 == main(argv)
    error = json.loads(capsys.readouterr().out)["error"]
    assert 2 == error["exit_code"]
    assert error["message"]


def test_without_json_nothing_is_printed(failing, capsys):
    """Standard output belongs to results."""
    failing(SuiteError("no", found=1))
    assert 2 == main(["plugins", "list"])
    assert "" == capsys.readouterr().out
