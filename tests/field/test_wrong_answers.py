"""Whoever returns something else than was asked for is told by name (E12)."""

import json
import re

import pytest

from tfq_bench.errors import BrokenPlugin

SOURCE = """
from tfq_bench import api

class Odd:
    def __init__(self, **given): pass
{methods}

def nothing(**given): return None
def text(**given): return "model"
def a_class(**given): return Odd
def missing(**given): return api.Option
class Empty:
    pass
class Slots:
    __slots__ = ()
    def evaluate(self, inputs): return ()

@api.hookimpl
def {hook}():
    yield api.{provider}(name="odd", summary="", factory=f"{{__name__}}:{factory}")
"""

KINDS = {
    "model": ("tfq_models", "ModelProvider"),
    "quantizer": ("tfq_quantizers", "QuantizerProvider"),
    "backend": ("tfq_backends", "BackendProvider"),
    "metric": ("tfq_metrics", "MetricProvider"),
    "executor": ("tfq_executors", "ExecutorProvider"),
    "renderer": ("tfq_renderers", "RendererProvider"),
}


@pytest.fixture
def made(plugin_host):
    """A function that makes the object of a plugin with these methods or this factory."""

    def make(kind, methods="    pass", factory="Odd"):
        hook, provider = KINDS[kind]
        source = SOURCE.format(hook=hook, provider=provider, methods=methods, factory=factory)
        plugin_host.install("mine", source, distribution="my-dist", version="2.5")
        table = plugin_host.discover()
        return table.create(table.get(kind, "odd"))

    return make


WHO = r"{kind} 'odd' of plugin 'mine' \(my-dist 2\.5\)"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factory", ["nothing", "text"])
def test_a_factory_that_gives_something_else(made, kind, factory):
    """The provider, its plugin and distribution, what was expected and what was found."""
    found = {"nothing": "None", "text": "'model'"}[factory]
    with pytest.raises(BrokenPlugin, match=WHO.format(kind=kind)) as caught:
        made(kind, factory=factory)
    assert str(caught.value).endswith(f"found {found}.")
    assert "is expected to give an object with" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "method", "wanted"),
    [
        ("model", "load", "an nn.Module"),
        ("model", "topology", "a Topology"),
        ("model", "sampler", "a Sampler"),
        ("model", "conditions", "a mapping"),
        ("model", "guidance", "Guidance or None"),
        ("quantizer", "calibration_needs", "CalibrationNeeds"),
        ("quantizer", "quantize", "a QuantizedState"),
    ],
)
@pytest.mark.parametrize("value", ["None", "7", "[]", "object()", "Odd"])
def test_a_method_that_returns_something_else(made, kind, method, wanted, value):
    """The method's name, what it should return and the type that it did return."""
    odd = made(kind, f"    def {method}(self, *a, **k): return {value}")
    if value == "None" and "None" in wanted:
        assert getattr(odd, method)() is None
        return
    found = {"7": "int", "[]": "list", "object()": "object", "Odd": "type", "None": "NoneType"}
    reason = f": `{method}` is expected to return {wanted}, found {found[value]}."
    with pytest.raises(BrokenPlugin, match=WHO.format(kind=kind) + re.escape(reason)):
        getattr(odd, method)(1, two=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_that_is_not_there(made, kind):
    """It says so when it is called, instead of an AttributeError three modules later."""
    from tfq_bench.host.answers import METHODS

    odd = made(kind)
    for method in METHODS[kind]:
        reason = f" has no method `{method}`, which every {kind} has."
        with pytest.raises(BrokenPlugin, match=WHO.format(kind=kind) + reason):
            getattr(odd, method)("any", arguments=True)


def test_what_is_right_passes_unchanged(made):
    """Arguments go in, the very object comes out, and errors are the plugin's own."""
    odd = made("model", "    def conditions(self, images, *, device): return images or 1 / 0")
    condition = {"label": 3}
    assert odd.conditions(condition, device="cpu") is condition
    with pytest.raises(ZeroDivisionError):
        odd.conditions({}, device="cpu")


def test_an_object_with_slots_is_used_as_it_is(made):
    """Nothing can be written to it; its answers are judged where they are used."""
    assert () == made("metric", factory="Slots").evaluate(None)


QUANTIZER = """
from tfq_bench import api

class Forgets:
    def __init__(self, *, scheme): pass
    def calibration_needs(self, loaded, *, images): return api.CalibrationNeeds()
    def quantize(self, loaded, data, **more): {body}

@api.hookimpl
def tfq_quantizers():
    yield api.QuantizerProvider(
        name="forgets", summary="", factory=f"{{__name__}}:{factory}", wbits=(8,), abits=(8,)
    )
"""


def test_a_quantizer_that_returns_nothing_costs_its_cell(machine, suite_text):
    """The row of the table: its name and its distribution, exit 3, and the others finish."""
    machine.plugin("forgets", QUANTIZER.format(body="pass", factory="Forgets"))
    more = '{name = "rtn", wbits = [8], abits = 8}, {name = "forgets", wbits = [8], abits = 8}'
    text = suite_text.replace('{name = "rtn", wbits = [8], abits = 8}', more)
    (machine.cwd / "suite.toml").write_text(text)
    done = machine.run("run", "suite.toml", "--run", "here", "--no-report")
    assert 3 == done.returncode, done.stderr
    expected = (
        "quantizer 'forgets' of plugin 'forgets' (forgets 1.0): `quantize` is expected to return a "
        "QuantizedState, found NoneType."
    )
    assert expected in done.stderr + done.stdout
    records = [json.loads(line) for line in (machine.cwd / "here" / "records.jsonl").open()]
    assert 1 == sum(expected in json.dumps(record) for record in records)


@pytest.fixture(scope="module")
def checked(tmp_path_factory, new_machine):
    """What `plugins check --json` says of factories that are wrong in one way each."""
    machine = new_machine(tmp_path_factory.mktemp("checked"))
    for name, (factory, more, _) in WRONG.items():
        source = METRIC.format(name=name, factory=factory or f"{name}_module:Fine", more=more)
        machine.plugin(name, source)
    machine.sound()
    done = machine.run("plugins", "check", "--json", *WRONG, timeout=300)
    found = json.loads(done.stdout)["factories"]
    return done, {one["name"]: one["faults"] for one in found}


METRIC = """
from tfq_bench import api

class Fine:
    def __init__(self): pass
    def evaluate(self, inputs): return ()

{more}

@api.hookimpl
def tfq_metrics():
    yield api.MetricProvider(name="{name}", summary="", factory="{factory}",
        options=globals().get("options", ()), assets=globals().get("ASSETS", ""))
"""

OPTION = "options = (api.Option(name='k', kind='int', default=1, help=''),)"
ASSETS = "def files(options): return {0}\nASSETS = __name__ + ':files'"

# Factory, more lines of the module, and what the fault says; None where there is none.
WRONG = {
    "fine": ("", "", None),
    "misspelt": ("misspelt_module:Fien", "", "has no 'Fien'; did you mean 'Fine'"),
    "nomodule": ("no_such_module:Fine", "", "cannot import no_such_module"),
    "notcallable": ("notcallable_module:seven", "seven = 7", "cannot be called; it is 7"),
    "lacksone": ("lacksone_module:Half", "class Half:\n    def check(self, *, images): pass",
                 "lacks evaluate of a metric"),
    "noarguments": ("", OPTION, "is called with k, and does not fit"),
    "unknownneed": ("unknownneed_module:More", "class More(Fine):\n"
                    "    def __init__(self, *, needed): pass", "'needed'"),
    "exits": ("exits_more:Fine", "", "cannot import exits_more"),
    "ends": ("ends_module:Nothing", "def __getattr__(name): import os; os._exit(0)",
             "ends the process with exit code 0"),
    "assetslist": ("", ASSETS.format("[]"), "must return a tuple of Asset objects, found []"),
    "assetsraise": ("", ASSETS.format("1 / 0"), "ZeroDivisionError"),
    "assetsexit": ("", ASSETS.format("__import__('os')._exit(0)"), "with exit code 0"),
    "assetsinterrupt": ("", "def files(options): raise KeyboardInterrupt\nASSETS = "
                        "__name__ + ':files'", "KeyboardInterrupt"),
    "assetsmissing": ("", "ASSETS = __name__ + ':fiels'", "has no 'fiels'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_check_says_what_is_wrong_with_a_factory(checked, name):
    """Each on its own, also when importing it ends the process."""
    _, faults = checked
    reason = WRONG[name][2]
    if reason is None:
        assert [] == faults[name]
    else:
        assert reason in " ".join(faults[name])


def test_check_fails_when_something_is_wrong(checked, machine):
    """1 for a script; 0 when all that was asked for is well."""
    done, _ = checked
    assert 1 == done.returncode
    machine.plugin("fine", METRIC.format(name="fine", factory="fine_module:Fine", more=""))
    machine.plugin("bad", "raise RuntimeError")
    assert 0 == machine.run("plugins", "check", "fine").returncode
    assert 1 == machine.run("plugins", "check", "fine", "bad").returncode
    told = machine.run("plugins", "check", "fien")
    assert 2 == told.returncode
    assert "did you mean 'fine'" in told.stderr


def test_list_says_what_it_does_not_look_at(machine):
    """Who reads that all is ok knows that factories were not imported."""
    assert "'plugins check' does" in machine.run("plugins", "list", "--broken").stdout


LOUD = """
print("{ from the module")

class Loud:
    def __init__(self): print("[ from the object")
    def check(self, *, images): print("( from a method"); return ""
    def evaluate(self, inputs): return ()
"""


def test_a_plugin_that_prints_does_not_break_json(machine, suite_text):
    """What it says goes where people read, not where scripts do."""
    source = METRIC.format(name="loud", factory="loud_factory:Loud", more="")
    machine.plugin("loud", source)
    (machine.folder / "loud_factory.py").write_text(LOUD)
    (machine.cwd / "suite.toml").write_text(suite_text.replace('"bits"', '"loud"'))
    done = machine.run("plan", "suite.toml", "--json")
    assert 0 == done.returncode, done.stderr
    assert 2 == len(json.loads(done.stdout)["cells"])
    assert "{ from the module" in done.stderr
    assert "[ from the object" in done.stderr
    assert "( from a method" in done.stderr


METHOD = """
class Loud:
    def check(self, *, images): {0}
    def evaluate(self, inputs): return ()
"""


@pytest.mark.parametrize(
    "where",
    [
        "import os; os._exit(0)",
        "def Loud(): import os; os._exit(0)",
        METHOD.format("__import__('os')._exit(0)"),
        METHOD.format("__import__('os').execv('/bin/true', ['true'])"),
        METHOD.format("__import__('os').execlp('true', 'true')"),
    ],
)
def test_a_plugin_that_ends_the_process_is_no_success(machine, suite_text, where):
    """No command ends with 0 and no output, also when a plugin in use wants it."""
    machine.plugin("ends", METRIC.format(name="ends", factory="ends_factory:Loud", more=""))
    (machine.folder / "ends_factory.py").write_text(where)
    (machine.cwd / "suite.toml").write_text(suite_text.replace('"bits"', '"ends"'))
    done = machine.run("plan", "suite.toml")
    assert 70 == done.returncode
    assert "a plugin has ended the process" in done.stderr


CHILD = """
import os
child = os.fork()
if not child:
    os.execv("/bin/sh", ["sh", "-c", "exit 5"])
assert 5 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


def test_children_of_a_plugin_run_what_they_want(machine, suite_text):
    """Only in the command's own process is another program no success."""
    machine.plugin("forks", METRIC.format(name="forks", factory="forks_factory:Loud", more=""))
    (machine.folder / "forks_factory.py").write_text(CHILD + METHOD.format("return ()"))
    (machine.cwd / "suite.toml").write_text(suite_text.replace('"bits"', '"forks"'))
    done = machine.run("plan", "suite.toml")
    assert 0 == done.returncode, done.stderr
