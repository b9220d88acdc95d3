"""What a user sees of a whole run, in a process of its own."""


def test_a_quiet_run_shows_progress_and_nothing_else(apart):
    """Libraries write no lines of their own, neither from Python nor from C++."""
    ended = apart("run")
    assert 0 == ended.returncode
    first, *rest = ended.stderr.splitlines()
    assert f"{len(rest)} tasks to do" == first
    assert [] == [line for line in rest if not line.startswith("[")]
    assert [] == [line for line in ended.stdout.splitlines() if "Warning" in line]
