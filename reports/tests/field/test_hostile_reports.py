"""A report shows what others wrote and acts on none of it, and damaged files are sentences."""

import json
import re
import shutil
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfq_bench.errors import TfqError
from tfq_bench.store import records
from tfq_bench.store.run import RunFolder
from tfq_bench.testing.fuzzing import fuzz
from tfq_bench_reports.renderer import HtmlRenderer
from tfq_bench_reports.view.redact import redact

HOSTILE = "</title></script></svg><script>alert(1)</script><img src=x onerror='a()'>"
HOSTILE += "\x1b[2K\x00\u202e\ud800\"'"
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")
ALLOWED = {"script", "svg", "style", "img"}


class Page(HTMLParser):
    """Counts elements that could act, and attributes that do."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.counts, self.handlers, self.text = dict.fromkeys(ALLOWED, 0), [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        if tag in ALLOWED:
            self.counts[tag] += 1
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        self.handlers += [
            v for n, v in attributes if n in ("src", "href") and "script" in (v or "")
        ]

    def handle_data(self, data):
        self.text += data


def render(path, target):
    """The bytes of a run's report as text."""
    HtmlRenderer().render([path], target)
    return target.read_text("utf-8")


def hostile_run(synthetic, folder, text):
    """A run in which every text that a plugin or a file can choose is `text`."""
    cells = (
        *synthetic.CELLS[:4],
        synthetic.Spec("c8", 4, "cpu", status="failed", reason=text),
        synthetic.Spec("c9", 4, "cuda", status="skipped", reason=text),
    )
    run = synthetic.write_run(folder, cells)
    plan = run.plan()
    plan["suite"] = {"name": text, "summary": text}
    plan["sampling"] |= {text: text}
    for cell in plan["cells"]:
        cell["label"] = text
        cell["axes"] |= {"policy": text, "quantizer": text + cell["key"], "model": text}
    run.write(text.encode("utf-8", "replace").decode(), plan)
    first = run.records()[0]
    metric = synthetic.metric(
        text, 1.0, unit=text, series={text: (1.0, 2.0), "timestep": (2.0, 1.0)}
    )
    kind = type(first)
    fields = {name: getattr(first, name) for name in kind.__slots__}
    fields |= {"metric": metric, "definition": f"{text}@0", "plugins": (text,), "cell": "c1sim8"}
    records.append(run.records_path, [kind(**fields | {"source": "ec1sim8", "source_values": 13})])
    run.log_path("c8").write_bytes(text.encode("utf-8", "surrogatepass") * 50)
    return run


def test_hostile_text_in_every_place_is_shown_and_does_nothing(synthetic, tmp_path):
    """Labels, axes, metric names, units, series, reasons, plugins, logs, the suite itself."""
    plain = Page(render(synthetic.write_run(tmp_path / "plain").path, tmp_path / "plain.html"))
    text = render(hostile_run(synthetic, tmp_path / "run", HOSTILE).path, tmp_path / "r.html")
    assert not FORBIDDEN.search(text)
    page = Page(text)
    assert plain.counts["script"] == page.counts["script"] == 1
    assert plain.counts["style"] == page.counts["style"]
    assert not page.handlers
    assert "<script>alert(1)</script>" in page.text


@fuzz(3)
@given(st.text(st.characters(exclude_categories=()), min_size=1, max_size=40))
def test_fuzz_any_text_in_a_report(synthetic, tmp_path_factory, text):
    """Whatever it is, the page holds no control character and one script."""
    folder = tmp_path_factory.mktemp("any")
    shown = render(hostile_run(synthetic, folder / "run", text).path, folder / "r.html")
    assert not FORBIDDEN.search(shown)
    assert 1 == Page(shown).counts["script"]
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 5_000_000,
        "token" * 1_000_000,
        "token=" * 800_000,
        "bearer " * 700_000,
        "authorization" + " " * 5_000_000,
        "://" * 1_500_000,
        "://a:" * 1_000_000,
        "hf_" + "A" * 5_000_000 + "_",
        "api_key" + "-" * 5_000_000,
        "password='" * 500_000,
    ],
    ids=range(10),
)  # fmt: skip
def test_redaction_takes_time_in_proportion_to_the_text(text):
    """Twice the text, about twice the time; five million characters in one line are no hang."""
    start = time.process_time()
    redact(text)
    assert time.process_time() - start < 20  # quadratic took hours


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("HF_TOKEN=abc123", "abc123"),
        ("my-api-key: 'a b c'", "a b c"),
        ("Authorization: Bearer abcdef", "abcdef"),
        ("https://me:hunter2@host/x", "hunter2"),
        ("x" * 100_000 + " secret = s3cr3t", "s3cr3t"),
        ("password" + " " * 10 + "= s3cr3t", "s3cr3t"),
    ],
)
def test_secrets_are_masked_all_the_same(text, secret):
    """Bounds do not let one through."""
    assert secret not in redact(text)


def test_a_long_reason_and_a_long_log_are_cut(synthetic, tmp_path):
    """One line of five million characters makes no page that nobody can open."""
    long = "boom " * 1_000_000
    cells = (*synthetic.CELLS[:2], synthetic.Spec("c8", 4, "cpu", status="failed", reason=long))
    run = synthetic.write_run(tmp_path / "run", cells)
    run.log_path("c8").write_text(long)
    text = render(run.path, tmp_path / "r.html")
    assert len(text) < 2_000_000
    assert "5,000,000 characters" in text


def test_a_damaged_environment_does_not_stop_the_report(synthetic, tmp_path):
    """It is left out; the numbers do not depend on it."""
    run = synthetic.write_run(tmp_path / "run")
    (path,) = run.path.glob("env-*.json")
    for damage in (b"", b"{", b"[" * 10_000, path.read_bytes().replace(b"avx2", b"avx9")):
        path.write_bytes(damage)
        text = render(run.path, tmp_path / "r.html")
        assert "avx9" not in text
        assert "psnr" in text


@fuzz(4)
@given(data=st.data())
def test_fuzz_damaged_run_folders(synthetic, tmp_path_factory, data):
    """Any byte of any file: a report of the original numbers, or a sentence."""
    if not _made:
        home = tmp_path_factory.mktemp("whole") / "run"
        _made.append(synthetic.write_run(home, synthetic.CELLS[:4]).path)
    home = tmp_path_factory.mktemp("one")
    shutil.copytree(_made[0], home / "run")
    files = sorted(p for p in (home / "run").rglob("*") if p.is_file() and p.stat().st_size)
    path = data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at : at + data.draw(st.integers(1, 50))] = data.draw(st.binary(max_size=50))
    path.write_bytes(bytes(content))
    try:
        answer = render(home / "run", home / "r.html")
    except TfqError as error:
        answer = f"{home} {error}"
    assert not FORBIDDEN.search(answer)
    shutil.rmtree(home)


_made = []


def test_facts_that_are_not_what_they_should_be_are_a_sentence(synthetic, tmp_path):
    """A lower stage whose result was redone with digests and all."""
    run = synthetic.write_run(tmp_path / "run", synthetic.CELLS[:3])
    shutil.rmtree(run.artefacts.path("lower", "lc2cpu8"))
    again = RunFolder.open(run.path)
    with again.artefacts.create("lower", "lc2cpu8") as folder:
        (folder / "result.json").write_text(json.dumps({"kernels": [{"kernel": 5}]}))
    with pytest.raises(TfqError, match="expected the kernels of cell"):
        render(run.path, tmp_path / "r.html")
