"""What commands say of the files of a run, a baseline and rules."""

import contextlib
import io

from tfq_bench.cli import main

RULES = """\
schema = 1

[[rule]]
metric = "psnr"
no-worse-than = { margin = 0.5 }

[[rule]]
metric = "*"
cell = "tiny / rtn W8A8 / simulate"
no-worse-than = { ratio = 1.1 }
on-missing = "fail"

[[rule]]
metric = "latency-ms"
ignore = true
"""

ANSWERS = {0, 1, 2, 4, 5}
"""What the exit code of a gate, a comparison or a report may be; 70 and tracebacks are bugs."""


def call(*argv):
    """Exit code, standard output and standard error of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in argv])
    return code, out.getvalue(), err.getvalue()


def gate(home, *more):
    """Exit code and output of the gate on what lies in `home`."""
    code, out, _ = call(
        "gate", home / "run", "--baseline", home / "base.json", "--rules", home / "rules.toml",
        "--json", *more,
    )  # fmt: skip
    return code, out


def edit(path, old, new):
    """Changes one text in a file that holds it."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def rows(frame):
    """What a table of records says, whatever types pandas found for columns that are empty."""
    names = ["cell", "metric", "value", "low", "high", "level", "unit", "definition", "replicates"]
    return {repr(row) for row in frame[names].itertuples(index=False) if row.metric is not None}
