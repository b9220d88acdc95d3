"""The file as a whole: well-formed, self-contained, deterministic, safe, complete."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from tfq_bench.errors import StoreError
from tfq_bench.store import records
from tfq_bench_reports.renderer import BUDGET, HtmlRenderer
from tfq_bench_reports.view.reader import read_run

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Elements with their text, and every closing tag that does not fit."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.stack, self.misfits, self.elements = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "attributes": dict(attributes), "text": ""}
        self.elements.append(element)
        if tag not in VOID:
            self.stack.append(element)

    def handle_startendtag(self, tag, attributes):
        self.elements.append({"tag": tag, "attributes": dict(attributes), "text": ""})

    def handle_endtag(self, tag):
        if not self.stack or self.stack[-1]["tag"] != tag:
            self.misfits.append((tag, self.getpos()))
        else:
            self.stack.pop()

    def handle_data(self, data):
        for element in self.stack:
            element["text"] += data

    def all(self, tag, **attributes):
        """Elements of a tag whose attributes have these values."""
        return [
            element
            for element in self.elements
            if element["tag"] == tag
            and all(element["attributes"].get(k.strip("_")) == v for k, v in attributes.items())
        ]


@pytest.fixture(scope="module")
def page(html):
    """The parsed report of the synthetic run."""
    return Page(html)


def rendered(run, folder, name="report.html"):
    """The text of a run's report."""
    HtmlRenderer().render([run.path], folder / name)
    return (folder / name).read_text("utf-8")


def test_well_formed_with_one_title_and_a_language(page):
    """Every element is closed; there is one h1; headings skip no level; ids are unique."""
    assert [] == page.misfits
    assert [] == page.stack
    assert "en" == page.all("html")[0]["attributes"]["lang"]
    assert ["synthetic"] == [element["text"].strip() for element in page.all("h1")]
    levels = [int(e["tag"][1]) for e in page.elements if re.fullmatch("h[1-6]", e["tag"])]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [e["attributes"]["id"] for e in page.elements if "id" in e["attributes"]]
    assert len(ids) == len(set(ids))


def test_links_and_labels_point_at_something(page):
    """No fragment link and no aria-labelledby is dangling."""
    ids = {e["attributes"].get("id") for e in page.elements}
    for element in page.elements:
        attributes = element["attributes"]
        if (attributes.get("href") or "").startswith("#"):
            assert attributes["href"][1:] in ids
        for target in (attributes.get("aria-labelledby") or "").split():
            assert target in ids


def test_every_table_is_announced(page, html):
    """Tables have a caption, headers a scope, images alternative text, charts a title."""
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(th["attributes"].get("scope") in ("col", "row") for th in page.all("th"))
    assert page.all("img")
    assert all(image["attributes"]["alt"] for image in page.all("img"))
    assert len(re.findall('class="chart"', html)) == len(page.all("desc")) > 0


def test_curves_that_matter_most_come_first(page):
    """Relative error and divergence of the trajectory, with a line for every quantized cell."""
    titles = [e["text"] for e in page.all("p", class_="figure-title")]
    shown = [title for title in titles if title.endswith("per timestep")]
    assert [
        "Relative error per timestep",
        "Trajectory divergence per timestep",
        "Prediction divergence per timestep",
        "One minus cosine per timestep",
        "Mismatch per timestep",
    ] == shown
    tables = [e for e in page.all("table", class_="plain") if "timestep" in e["text"]]
    for name in ("rtn W8A8 · simulate, cpu", "rtn W6A8 · simulate", "rtn W4A8 · simulate"):
        assert all(name in table["text"] for table in tables[:5])
    assert all("rtn W6A8 · cpu" in table["text"] for table in tables[:4])


def test_nothing_is_loaded_from_elsewhere(page, html):
    """The file opens from disk without a network."""
    for element in page.elements:
        for name in ("src", "href"):
            target = element["attributes"].get(name) or "#"
            assert target.startswith(("#", "data:image/png;base64,"))
    assert "@import" not in html
    assert not re.search(r"url\((?!['\"]?data:)", html)


def test_same_records_same_bytes(run, synthetic, tmp_path):
    """Neither the clock nor the place of the run leaves a trace in the file."""
    twin = synthetic.write_run(tmp_path / "somewhere-else" / "synthetic")
    assert rendered(run, tmp_path, "a.html") == rendered(twin, tmp_path, "b.html")


def test_every_value_is_there_without_script(run, html):
    """Each recorded number of each finished cell stands in the markup, before any script runs."""
    markup = Page(html.partition("<script>")[0])
    cells = [e["attributes"] for e in markup.elements if "data-sort" in e["attributes"]]
    sorts = {attributes["data-sort"] for attributes in cells}
    for record in run.records():
        if record.metric is not None:
            assert str(record.metric.value) in sorts


def test_failed_and_skipped_cells_are_rows_with_reasons(page, html):
    """A cell without numbers keeps its row; its stage, command and log tail are told."""
    rows = {row["attributes"].get("data-cell"): row["text"] for row in page.all("tr")}
    assert "layer 'mid.conv' has no kernel" in rows["rtn W4A8 · cpu"]
    assert "needs a GPU, found none" in rows["rtn W8A8 · cuda"]
    details = page.all("div", id="r0-cell-c6cpu4")[0]["text"]
    for part in ("failed", "at stage lower", "tfq-bench cell plan.json c6cpu4", "last line"):
        assert part in details


def test_secrets_stay_out(html):
    """Tokens in logs and suites are masked."""
    assert "hf_secretvalue" not in html
    assert "hunter2" not in html
    assert "HF_TOKEN=[redacted]" in html


def test_plugin_text_is_escaped(synthetic, tmp_path):
    """Markup in reasons, names and summaries is shown, not run."""
    hostile = "<script>alert(1)</script>\"><img src=x onerror='alert(2)'>"
    cells = (*synthetic.CELLS[:3], synthetic.Spec("c9", 4, "cpu", status="failed", reason=hostile))
    run = synthetic.write_run(tmp_path / "run", cells)
    plan = run.plan()
    plan["suite"]["name"] = hostile
    plan["cells"][2]["axes"]["quantizer"] = hostile
    run.write("", plan)
    text = rendered(run, tmp_path)
    page = Page(text)
    assert [] == page.misfits
    assert 1 == len(page.all("script"))
    assert not [e for e in page.all("img") if "onerror" in e["attributes"]]
    assert hostile in page.all("div", id="r0-cell-c9")[0]["text"]


def test_simulated_cells_never_show_a_speed(synthetic, run, tmp_path):
    """A latency that a plugin recorded for a simulated cell is left out everywhere."""
    copy = synthetic.write_run(tmp_path / "run")
    bogus = synthetic.metric("latency-ms", 3.25, unit="ms", volatile=True)
    old = next(r for r in copy.records() if r.cell == "c1sim8")
    records.append(copy.records_path, [replace(old, metric=bogus, definition="latency-ms@x")])
    view = read_run(copy)
    simulated = [cell for cell in view.cells if cell.execution == "simulated"]
    assert 3 == len(simulated)
    assert not any("latency-ms" in cell.metrics for cell in simulated)
    assert "3.25" not in rendered(copy, tmp_path)


def test_large_images_keep_to_the_budget(synthetic, tmp_path):
    """Big, noisy images are scaled down or left out, and the caption says so."""
    cells = tuple(
        synthetic.Spec(f"c{i}", 8, "eager" if i == 0 else f"backend{i}", 30.0 + i)
        for i in range(12)
    )
    # The reference key of the generator is that of its first cell.
    cells = (synthetic.Spec("c0fp", 32, "eager"), *cells[1:])
    run = synthetic.write_run(tmp_path / "run", cells, side=160)
    text = rendered(run, tmp_path)
    assert len(text.encode()) <= BUDGET
    assert "160 x 160 px are scaled down to 128 px" in text
    assert "data:image/png" in text


def test_several_runs_in_one_file(run, synthetic, tmp_path):
    """Each run has its own sections; ids and headings stay sound."""
    other = synthetic.write_run(tmp_path / "other", synthetic.CELLS[:3])
    HtmlRenderer().render([run.path, other.path], tmp_path / "both.html")
    page = Page((tmp_path / "both.html").read_text("utf-8"))
    ids = [e["attributes"]["id"] for e in page.elements if "id" in e["attributes"]]
    assert [] == page.misfits
    assert len(ids) == len(set(ids))
    assert 2 == len(page.all("article"))
    assert 1 == len(page.all("h1"))


def test_tampered_images_are_refused(synthetic, tmp_path):
    """Images whose digest does not match stop the report, and nothing is written."""
    run = synthetic.write_run(tmp_path / "run", synthetic.CELLS[:3])
    path = run.artefacts.path("sample", "sc1sim8") / "images.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="has changed"):
        rendered(run, tmp_path)
    assert not (tmp_path / "report.html").exists()
