"""What the script adds, in a real browser. Needs `chromium` on the PATH: `pytest -m browser`."""

import html as markup
import json
import os
import re
import shutil
import subprocess

import pytest

from tfq_bench_reports.renderer import HtmlRenderer

pytestmark = pytest.mark.browser

WATCH = """<script>
window.faults = [];
addEventListener("error", (event) => window.faults.push(String(event.message)));
</script>"""

PROBE = """<pre id="probe"></pre><script>
const table = document.querySelector("table.sortable");
const header = table.tHead.rows[0].cells[1];
const state = () => ({
  sort: header.getAttribute("aria-sort"),
  names: [...table.tBodies[0].rows].map((row) => row.dataset.cell),
  live: document.getElementById("live").textContent,
});
const found = { before: state() };
header.querySelector("button").click();
found.once = state();
header.querySelector("button").click();
found.twice = state();
const search = document.querySelector("#controls input[type=search]");
search.value = "w8a8";
search.dispatchEvent(new Event("input"));
found.filtered = [...table.tBodies[0].rows].filter((r) => !r.hidden).map((r) => r.dataset.cell);
found.live = document.getElementById("live").textContent;
found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
found.faults = window.faults;
document.getElementById("probe").textContent = JSON.stringify(found);
</script>"""


def browse(text, folder, width):
    """What the probe saw in a window of this width, and the browser's console."""
    name = shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
    file = folder / "probed.html"
    probed = text.replace("<head>", f"<head>{WATCH}").replace("</body>", f"{PROBE}</body>")
    file.write_text(probed, "utf-8")
    done = subprocess.run(
        [
            name,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},1000",
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "HOME": str(folder)},
    )
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, "the probe did not run"
    return json.loads(markup.unescape(found[1])), done.stderr


@pytest.fixture(scope="module")
def probed(html, tmp_path_factory):
    """The report in a window of 1280 px."""
    return browse(html, tmp_path_factory.mktemp("browser"), 1280)


def test_script_runs_without_a_fault(probed):
    """No exception, and nothing in the console."""
    found, console = probed
    assert [] == found["faults"]
    assert "CONSOLE" not in console


def test_headers_sort_in_both_directions(probed):
    """A click sorts upward, a second one downward; rows without a value stay last."""
    found, _ = probed
    assert found["before"]["sort"] is None
    assert ("ascending", "descending") == (found["once"]["sort"], found["twice"]["sort"])
    assert "Full precision" == found["once"]["names"][0]
    assert "rtn W4A8 · simulate" == found["twice"]["names"][0]
    last = {"rtn W4A8 · cpu", "rtn W8A8 · cuda"}
    assert last == set(found["once"]["names"][-2:]) == set(found["twice"]["names"][-2:])
    assert "descending" in found["twice"]["live"]


def test_filter_hides_rows_and_says_how_many_are_left(probed):
    """The search field works on all tables and announces its result."""
    found, _ = probed
    expected = {"rtn W8A8 · simulate", "rtn W8A8 · cpu", "rtn W8A8 · cuda"}
    assert expected == set(found["filtered"])
    assert "3 of 8 cells shown" == found["live"]


def test_filter_counts_every_cell_of_a_row(synthetic, tmp_path):
    """A row of two cells counts as two, and is found by the name of either."""
    cells = (
        synthetic.CELLS[0],
        synthetic.Spec("sim8", 8, "simulate", 2.0, draw=1),
        synthetic.Spec("cpu8", 8, "cpu", 2.0, draw=1),
        synthetic.Spec("sim4", 4, "simulate", 20.0),
    )
    run = synthetic.write_run(tmp_path / "run", cells)
    HtmlRenderer().render([run.path], tmp_path / "report.html")
    found, _ = browse((tmp_path / "report.html").read_text("utf-8"), tmp_path, 1280)
    assert ["rtn W8A8 · simulate, cpu"] == found["filtered"]
    assert "2 of 4 cells shown" == found["live"]


@pytest.mark.parametrize("width", [500, 1280])
def test_page_never_scrolls_sideways(html, tmp_path, width):
    """Wide tables scroll in their own container."""
    found, _ = browse(html, tmp_path, width)
    assert found["overflow"] <= 0
