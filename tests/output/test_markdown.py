"""No content breaks a pipe table."""

from tfq_bench.output.markdown import table


def test_a_table_is_a_pipe_table():
    """One line per row, with the line that makes it a table."""
    assert "| a | b |\n| --- | --- |\n| 1 | 2 |\n" == table(("a", "b"), [("1", "2")])


def test_marks_lose_their_meaning():
    """A pipe, a line break, a tag or emphasis in a reason is shown as it is."""
    line = table(("a",), [("x|y\nz <b> \\| *w*",)]).splitlines()[2]
    assert r"| x\|y z &lt;b&gt; \\\| \*w\* |" == line
