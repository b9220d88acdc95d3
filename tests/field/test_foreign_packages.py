"""A damaged distribution is broken with its reason, and every command that needs it not works."""

import json
import os
import shutil

import pytest

from tfq_bench.store.run import RunFolder

LONG = b"x" * 10_000_000


def points(text):
    """Files of a distribution with these entry points."""
    return {"entry_points.txt": text if isinstance(text, bytes) else text.encode()}


def meta(text):
    """Files of a distribution with these metadata."""
    return {"METADATA": text if isinstance(text, bytes) else text.encode()}


def origin(text):
    """Files of a distribution with this origin."""
    return {"direct_url.json": text if isinstance(text, bytes) else text.encode()}


# Name of the kind, files of the dist-info, and what the reason says; None where it is ok.
DAMAGED = [
    ("no-metadata", {"METADATA": None}, "has no METADATA"),
    ("empty-metadata", meta(""), "has no METADATA"),
    ("no-name", meta("Metadata-Version: 2.1\nVersion: 1.0\n"), "has no Name"),
    ("empty-name", meta("Name:\nVersion: 1.0\n"), "has no Name"),
    ("no-version", meta("Name: no-version\n"), "has no Version"),
    ("name-in-text", meta("Version: 1.0\n\nName: in-the-description\n"), "has no Name"),
    ("odd-name", meta("Name: a b/../c\nVersion: 1.0\n"), "Name should be letters"),
    ("long-name", meta(b"Name: " + LONG[:5000] + b"\nVersion: 1\n"), "Name should be letters"),
    ("escape-name", meta("Name: a\x1b[31m\nVersion: 1.0\n"), r"found 'a\x1b[31m'"),
    ("other-name", meta("Name: tfq-bench-cpu\nVersion: 1.0\n"), "is that of 'tfq-bench-cpu'"),
    ("odd-version", meta("Name: odd-version\nVersion: latest!!\n"), "a version of PEP 440"),
    ("date-version", meta("Name: date-version\nVersion: 2004d\n"), "a version of PEP 440"),
    ("latin-metadata", meta("Name: é\nVersion: 1.0\n".encode("latin-1")), "it is not UTF-8"),
    ("binary-metadata", meta(bytes(range(256))), "METADATA is damaged"),
    ("huge-metadata", meta(LONG), "it has 10,000,000 bytes"),
    ("origin-not-json", origin("{"), "direct_url.json is damaged: it is not JSON"),
    ("origin-empty", origin(""), "direct_url.json is damaged"),
    ("origin-list", origin("[]"), "expected an object with the origin"),
    ("origin-null", origin("null"), "expected an object with the origin"),
    ("origin-text", origin('{"dir_info": "editable"}'), "expected an object with the origin"),
    ("origin-deep", origin("[" * 100_000), "nested more than 64 levels"),
    ("origin-binary", origin(b"\xff\xfe{}"), "direct_url.json is damaged: it is not UTF-8"),
    ("origin-huge", origin(b'{"a": "' + LONG + b'"}'), "direct_url.json is damaged: it has 10,0"),
    ("no-equals", points("[tfq_bench]\nno_equals_module\n"), "line 2 should be 'name = package"),
    ("no-bracket", points("[tfq_bench\na = b\n"), "line 1 should be '[tfq_bench]'"),
    ("latin-points", points("[tfq_bench]\né = m\n".encode("latin-1")), "it is not UTF-8"),
    ("utf16-points", points("[tfq_bench]\na = m\n".encode("utf-16")), "it is not UTF-8"),
    ("nul-points", points("[tfq_bench]\na\0b = m\n"), r"found 'a\x00b'"),
    ("huge-points", points(b"[tfq_bench]\n" + LONG + b" = m\n"), "it has 10,000,017 bytes"),
    ("empty-entry", points("[tfq_bench]\n= m\n"), "1 to 100 printable characters"),
    ("long-entry", points("[tfq_bench]\n" + "x" * 9999 + " = m\n"), "1 to 100 printable"),
    ("escape-entry", points("[tfq_bench]\na\x1b[2J = m\n"), r"found 'a\x1b[2J'"),
    ("bidi-entry", points("[tfq_bench]\na\u202eb = m\n"), r"found 'a\u202eb'"),
    ("no-module", points("[tfq_bench]\nplain = \n"), "should name a module"),
    ("odd-module", points("[tfq_bench]\nplain = ../../evil\n"), "should name a module"),
    ("dots-module", points("[tfq_bench]\nplain = ..\n"), "should name a module"),
    ("twice", points("[tfq_bench]\na = m\na = m\n"), "names 'a' 2 times"),
    ("thousands", points("[tfq_bench]\n" + "\n".join(f"e{i} = m" for i in range(9999))),
     "declares 9,999 plugins"),
    ("missing-module", {}, "No module named"),
]  # fmt: skip


@pytest.fixture(scope="module")
def damaged(tmp_path_factory, new_machine):
    """A machine with every damaged distribution and a sound one; `listed` by distribution."""
    machine = new_machine(tmp_path_factory.mktemp("damaged"))
    machine.sound()
    for name, files, _ in DAMAGED:
        machine.metadata(f"{name.replace('-', '_')}-1.0", **files)
    done = machine.run("plugins", "list", "--json")
    assert 0 == done.returncode, done.stderr
    assert "" == done.stderr
    machine.listed = {}
    for plugin in json.loads(done.stdout):
        machine.listed.setdefault(plugin["distribution"].replace("-", "_"), plugin)
    return machine


@pytest.mark.parametrize(("name", "files", "reason"), DAMAGED, ids=[case[0] for case in DAMAGED])
def test_it_is_broken_and_says_why(damaged, name, files, reason):
    """One printable line says which file is wrong and how."""
    plugin = damaged.listed[name.replace("-", "_")]
    assert "broken" == plugin["status"]
    assert reason in plugin["reason"]
    assert "".join(plugin[key] for key in ("plugin", "distribution", "reason")).isprintable()
    assert 1000 > len(json.dumps(plugin))


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("plugins list", 0),
        ("plugins list --no-plugins", 0),
        ("plugins list --broken --json", 0),
        ("plugins check sound", 0),
        ("plugins check no-metadata", 2),
        ("plugins check no_metadata", 1),
        ("assets list", 0),
        ("assets check --no-plugins", 0),
        ("plan suite.toml", 0),
        ("plan no-such-suite", 2),
    ],
)
def test_commands_that_do_not_use_them_work(damaged, suite_text, command, code):
    """Nothing of a damaged distribution is needed for them; `check` fails for it alone."""
    (damaged.cwd / "suite.toml").write_text(suite_text)
    done = damaged.run(*command.split())
    assert code == done.returncode, done.stderr
    assert "Traceback" not in done.stderr
    assert "" != done.stdout + done.stderr


def test_a_suite_runs_beside_them(damaged, suite_text):
    """Planned, run, looked at and compared; for workers see `test_discovery_in_use.py`."""
    (damaged.cwd / "suite.toml").write_text(suite_text)
    for command in (
        "run suite.toml --run here --no-report",
        "status here",
        "compare here here",
    ):
        done = damaged.run(*command.split())
        assert 0 == done.returncode, done.stderr
        assert "Traceback" not in done.stderr


def test_without_plugins_nothing_is_looked_at(damaged):
    """`--no-plugins` lists the built-in alone."""
    done = damaged.run("plugins", "list", "--no-plugins", "--json")
    assert ["builtin"] == [plugin["plugin"] for plugin in json.loads(done.stdout)]


def test_who_asks_for_what_is_missing_reads_one_line_a_plugin(damaged, suite_text):
    """The hint about broken plugins is bounded and printable."""
    suite = damaged.cwd / "other.toml"
    suite.write_text(suite_text.replace('"rtn"', '"rnt"'))
    done = damaged.run("plan", suite)
    assert 2 == done.returncode
    assert "no quantizer is called 'rnt'; did you mean 'rtn'" in done.stderr
    assert "'missing_module' (missing_module 1.0) is broken" in done.stderr
    assert done.stderr.strip().isprintable()
    assert 20_000 > len(done.stderr)


def listed(machine):
    """Status and reason by the name of the distribution."""
    done = machine.run("plugins", "list", "--json")
    assert 0 == done.returncode, done.stderr
    return {p["distribution"]: (p["status"], p["reason"]) for p in json.loads(done.stdout)}


def test_two_versions_in_one_folder_are_broken(machine):
    """Nobody knows which of them runs, so no version stands for the code."""
    machine.sound()
    machine.sound("other")
    shutil.copytree(machine.folder / "sound-1.0.dist-info", machine.folder / "sound-2.0.dist-info")
    found = listed(machine)
    assert "broken" == found["sound"][0]
    assert "(sound-1.0 and sound-2.0)" in found["sound"][1]
    assert "ok" == found["other"][0]


def test_an_earlier_folder_hides_a_later_one(machine, new_machine, tmp_path_factory):
    """As for imports, and without a word: a checkout before an installation is common."""
    machine.sound()
    later = new_machine(tmp_path_factory.mktemp("later"))
    later.metadata("sound-9.0", METADATA=None)
    machine.environment["PYTHONPATH"] += os.pathsep + str(later.folder)
    assert ("ok", "") == listed(machine)["sound"]


def no_file(path):
    """A folder where a file should be."""
    path.unlink()
    path.mkdir()


def no_end(path):
    """A pipe that nobody writes into: to read it is to wait for ever."""
    path.unlink()
    os.mkfifo(path)


def no_device(path):
    """A file without an end."""
    path.unlink()
    path.symlink_to("/dev/zero")


def to_itself(path):
    """A link to itself."""
    path.unlink()
    path.symlink_to(path)


def test_what_is_no_regular_file_is_broken(machine):
    """Nothing waits for it, and the reason names the file."""
    machine.sound("other")
    for filename in ("entry_points.txt", "METADATA", "direct_url.json"):
        for damage in (no_file, no_end, no_device, to_itself):
            info = machine.metadata(f"{filename[0]}_{damage.__name__}-1.0")
            (info / filename).touch()
            damage(info / filename)
    found = listed(machine)
    for filename in ("entry_points.txt", "METADATA", "direct_url.json"):
        for damage in (no_file, no_end, no_device, to_itself):
            status, reason = found[f"{filename[0]}_{damage.__name__}"]
            assert "broken" == status
            assert f"Its {filename} is damaged" in reason
    assert "ok" == found["other"][0]


def test_what_is_not_ours_may_be_damaged(machine):
    """A distribution that does not name the group is nobody's business here."""
    machine.metadata("stranger-1.0", METADATA=None, **points("[console_scripts]\nbroken line\n"))
    machine.metadata("binary-1.0", **points(bytes(range(256))))
    (machine.folder / "empty-1.0.dist-info").mkdir()
    (machine.folder / "file-1.0.dist-info").write_text("no folder")
    (machine.folder / "old.egg-info").write_text("Name: old\nVersion: 1\n")
    (machine.folder / "link.egg-link").write_text("/nowhere\n.")
    (machine.folder / "-.dist-info").mkdir()
    (machine.folder / ".dist-info").mkdir()
    assert not {"stranger", "binary", "empty", "file", "old", "link"} & set(listed(machine))


def test_a_byte_order_mark_is_none_of_the_name(machine):
    """Editors write it; the group is seen behind it."""
    machine.metadata("marked-1.0", **points("\ufeff[tfq_bench]\r\nmarked = marked_module\r\n"))
    (machine.folder / "marked_module.py").write_text("")
    assert ("ok", "") == listed(machine)["marked"]


def test_an_egg_link_counts(machine, tmp_path):
    """`setup.py develop`: metadata beside the sources, and a path that leads there."""
    sources = tmp_path / "sources"
    (sources / "old_style.egg-info").mkdir(parents=True)
    (sources / "old_style.egg-info" / "PKG-INFO").write_text("Name: old-style\nVersion: 1.0\n")
    (sources / "old_style.egg-info" / "entry_points.txt").write_text("[tfq_bench]\no = old_one\n")
    (sources / "old_one.py").write_text("from tfq_bench import api\n")
    machine.environment["PYTHONPATH"] += os.pathsep + str(sources)
    assert ("ok", "") == listed(machine)["old-style"]


def test_damaged_metadata_of_libraries_ends_no_run(machine, suite_text):
    """A half-finished installation of torch or numpy: the record says the version is unknown."""
    for name, content in (("numpy", b"\xff\xfe"), ("torch", None)):
        machine.metadata(f"{name}-1.0", METADATA=content, **points(""))
    (machine.cwd / "suite.toml").write_text(suite_text)
    done = machine.run("run", "suite.toml", "--run", "out", "--no-report")
    assert 0 == done.returncode, done.stderr
    (environment,) = RunFolder.open(machine.cwd / "out").environments().values()
    assert {"unknown"} == {environment["versions"][name] for name in ("numpy", "torch")}
