"""A plugin that notes each import, and what a command lists."""

import json

MARK = """
import pathlib
with pathlib.Path({path!r}).open("a") as file:
    file.write("imported\\n")
from tfq_bench import api

@api.hookimpl
def tfq_metrics():
    yield api.MetricProvider(name={name!r}, summary="For a test.", factory="fractions:Fraction")
"""


def names(machine, **environment):
    """Names of all providers that are listed as usable."""
    done = machine.run("plugins", "list", "--json", **environment)
    assert 0 == done.returncode, done.stderr
    return {p["name"] for plugin in json.loads(done.stdout) for p in plugin["providers"]}
