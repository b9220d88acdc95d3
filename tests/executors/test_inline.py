"""Tasks run in order, and what depends on a failure is given up."""

from tfq_bench.executors.inline import InlineExecutor


def test_one_after_another(task, life, tmp_path):
    """Each task ends before the next one starts."""
    events = life(InlineExecutor(tmp_path), [task("a"), task("b", "a"), task("c")])
    assert [
        ("start", "a"),
        ("done", "a", None, None),
        ("start", "b"),
        ("done", "b", None, None),
        ("start", "c"),
        ("done", "c", None, None),
    ] == events


def test_a_failure_blocks_what_needs_it_and_names_the_first_cause(task, life, tmp_path):
    """Tasks behind a failure never start; others do."""
    tasks = [task("a"), task("b", "a"), task("c", "b"), task("d")]
    events = life(InlineExecutor(tmp_path), tasks, failing={"a"})
    assert [
        ("start", "a"),
        ("done", "a", "boom", None),
        ("done", "b", "boom", "a"),
        ("done", "c", "boom", "a"),
        ("start", "d"),
        ("done", "d", None, None),
    ] == events


def test_needs_that_were_finished_before_do_not_hold_back(task, life, tmp_path):
    """A need outside of what is to do is finished work."""
    assert 2 == len(life(InlineExecutor(tmp_path), [task("b", "finished-long-ago")]))
