"""The README promises nothing that does not work."""

import re
import shlex
from pathlib import Path

import pytest

from tfq_bench.cli import _parse

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")

COMMANDS = sorted(
    {
        command.split("#")[0].strip()
        for command in re.findall(
            r"tfq-bench (?:run|plan|cell|status|report|gate|plugins|baseline"
            r"|compare|assets|init|history) [^`|\n]+",
            README,
        )
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_accepted(command):
    """Each command of the README is one that the command line understands."""
    words = shlex.split(command)[1:]
    assert words[0] == _parse(words).execute.__module__.rpartition(".")[2]


def test_files_exist():
    """Each file that README and CONTRIBUTING link to is there."""
    texts = [README, (ROOT / "CONTRIBUTING.md").read_text("utf-8")]
    links = {link for text in texts for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)}
    assert len(links) > 5
    assert [] == [link for link in links if not (ROOT / link).exists()]


def test_ten_line_plugin_works(plugin_host):
    """The README's quantizer is discovered and quantizes the tiny model."""
    from tfq_bench.api import Scheme
    from tfq_bench.pipeline.calibrate import capture
    from tfq_bench.seeds import generator
    from tfq_bench.testing.tiny import load_tiny

    plugin, method = re.findall(r"```python\n(from tfq_bench.*?)```", README, re.DOTALL)
    package = plugin_host.folder / "my_quantizer"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "method.py").write_text(method, "utf-8")
    (package / "plugin.py").write_text(plugin, "utf-8")
    plugin_host.install("my-quantizer", "my_quantizer.plugin")
    table = plugin_host.discover()
    scheme, loaded = Scheme(wbits=4, abits=8), load_tiny()
    quantizer = table.create(table.get("quantizer", "rtn-mse"), scheme=scheme)
    needs = quantizer.calibration_needs(loaded, images=2)
    data = capture(loaded, needs, seed=0, batch=2, progress=lambda *_: None)
    state = quantizer.quantize(
        loaded, data, generator=generator(0, "readme"), progress=lambda *_: None
    )
    assert scheme == state.scheme
    assert {4, 8} == {layer.wbits for layer in state.layers.values()}
