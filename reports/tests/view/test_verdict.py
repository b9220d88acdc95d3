"""The verdict says no more than the intervals allow."""

from dataclasses import replace

import pytest

from tfq_bench_reports.view.reader import read_run
from tfq_bench_reports.view.types import Trouble
from tfq_bench_reports.view.verdict import verdict


@pytest.fixture(scope="module")
def view(run):
    """The view of the synthetic run."""
    return read_run(run)


def points(view):
    """Sentences by title."""
    return {point.title: point.text for point in verdict(view)}


def test_ties_are_named_as_ties(view):
    """Two cells whose difference includes zero share the first place."""
    text = points(view)["Closest to full precision"]
    assert text.startswith("rtn W8A8 · simulate comes closest")
    assert "rtn W8A8 · cpu cannot be told from it" in text
    assert "rtn W4A8 · simulate is furthest away" in text


def test_no_difference_is_said_in_words(view):
    """A cell whose interval includes zero is neither better nor worse."""
    text = points(view)["Image quality (fd-efficientnet-lite0)"]
    worse, _, same = text.partition("No measurable difference from full precision:")
    assert "rtn W6A8 · cpu" in worse
    assert "rtn W4A8 · simulate" in worse
    assert " rtn W8A8 · simulate and rtn W8A8 · cpu." == same


def test_speed_is_said_of_lowered_cells_only(view):
    """Simulated cells are in no sentence about speed."""
    text = points(view)["Speed"]
    assert "rtn W8A8 · cpu" in text
    assert "simulate" not in text


def test_speedup_whose_interval_includes_one_is_no_speedup(view):
    """A ratio of 1.02 between 0.9 and 1.1 is no measurable difference."""

    def slowed(cell):
        name = "speedup-vs-fp32-eager"
        if name not in cell.metrics:
            return cell
        old = cell.metrics[name]
        interval = replace(old.interval, low=0.9, high=1.1)
        return replace(
            cell, metrics={**cell.metrics, name: replace(old, value=1.02, interval=interval)}
        )

    text = points(replace(view, cells=tuple(map(slowed, view.cells))))["Speed"]
    assert text.startswith("No measurable difference in speed: rtn W8A8 · cpu and rtn W6A8 · cpu.")


def test_only_simulated_cells_have_no_speed(view):
    """Without a lowered cell nothing is said about speed, and why."""
    cells = tuple(cell for cell in view.cells if cell.execution != "lowered")
    assert "simulations are not timed" in points(replace(view, cells=cells))["Speed"]


def test_failures_and_few_images_are_on_the_first_screen(view):
    """What went wrong and what limits the numbers is part of the verdict."""
    found = points(view)
    assert "stage lower: layer 'mid.conv' has no kernel" in found["1 cell failed"]
    assert "needs a GPU" in found["1 cell skipped"]
    assert "rest on 64 images" in found["Few images"]


@pytest.mark.parametrize("besides", ["", "metric 'score': raised ValueError"])
def test_broken_images_are_explained_once(view, besides):
    """Under "finished in part" stands what is new: other reasons, or where the reason was given."""
    reason = "its images are black (all 4)."
    whole = "; ".join(filter(None, (f"metric 'sanity': {reason}", besides)))
    trouble = Trouble(status="partial", reason=whole, besides=besides, stage="evaluate")
    cell = replace(view.cells[1], status="partial", trouble=trouble, broken=reason)
    found = points(replace(view, cells=(view.cells[0], cell, *view.cells[2:])))
    assert f"{cell.name}: {reason}" == found["Broken images in 1 cell"]
    said = besides or "broken images, as said above"
    assert f"{cell.name}, stage evaluate: {said}." == found["1 cell finished in part"]


def test_run_without_full_precision_says_so(view):
    """No reference, no comparison."""
    cells = tuple(cell for cell in view.cells if cell.quantized)
    found = points(replace(view, cells=cells))
    assert "No full-precision cell" in found
    assert not any(title.startswith("Image quality") for title in found)


def test_not_a_number_is_a_caution(view):
    """NaN never ranks first; it is named."""
    first = view.cells[1]
    value = replace(first.metrics["psnr"], value=float("nan"))
    broken = replace(first, metrics={**first.metrics, "psnr": value})
    found = points(replace(view, cells=(view.cells[0], broken, *view.cells[2:])))
    assert "psnr of rtn W8A8 · simulate" in found["Not a finite number"]
    assert found["Closest to full precision"].startswith("rtn W8A8 · cpu comes closest")


def test_cells_of_equal_numbers_are_named_once(synthetic, tmp_path):
    """Simulated and lowered are one name in every sentence that their numbers share."""
    cells = (
        synthetic.CELLS[0],
        synthetic.Spec("sim8", 8, "simulate", 2.0, draw=1),
        synthetic.Spec("cpu8", 8, "cpu", 2.0, draw=1),
        synthetic.Spec("sim4", 4, "simulate", 20.0, draw=2),
        synthetic.Spec("cpu4", 4, "cpu", 20.0, draw=2),
    )
    found = points(read_run(synthetic.write_run(tmp_path / "run", cells)))
    closest = found["Closest to full precision"]
    assert closest.startswith("rtn W8A8 · simulate, cpu comes closest")
    assert "rtn W4A8 · simulate, cpu is furthest away" in closest
    assert "cannot be told" not in closest
    assert 1 == found["Image quality (fd-efficientnet-lite0)"].count("rtn W4A8")


def seeded(synthetic, folder, noises):
    """A run of two methods at W4A8 with one seed per noise."""
    cells = [synthetic.CELLS[0]]
    for quantizer, levels in noises.items():
        cells += [
            synthetic.Spec(
                f"{quantizer}{n}", 4, "simulate", level, quantizer=quantizer, seed=str(n)
            )
            for n, level in enumerate(levels)
        ]
    return read_run(synthetic.write_run(folder / "run", cells))


def test_a_lucky_seed_does_not_win(synthetic, tmp_path):
    """Methods rank by their mean over seeds; ranges that overlap are no difference."""
    view = seeded(synthetic, tmp_path, {"steady": (10.0, 10.5), "lucky": (9.0, 30.0)})
    text = points(view)["Closest to full precision"]
    assert text.startswith("steady W4A8 · simulate · seeds 0, 1 comes closest")
    assert "on average over its seeds" in text
    assert "lucky W4A8 · simulate · seeds 0, 1 cannot be told from it" in text


def test_seeds_that_lie_apart_are_a_difference(synthetic, tmp_path):
    """Ranges that do not overlap tell two methods apart."""
    view = seeded(synthetic, tmp_path, {"good": (5.0, 6.0), "bad": (25.0, 30.0)})
    text = points(view)["Closest to full precision"]
    assert "bad W4A8 · simulate · seeds 0, 1 is furthest away" in text
    assert "cannot be told" not in text


def test_quality_that_depends_on_the_seed_says_so(synthetic, tmp_path):
    """No word for the method where its seeds have different ones."""
    view = seeded(synthetic, tmp_path, {"moody": (0.1, 30.0)})
    text = points(view)["Image quality (fd-efficientnet-lite0)"]
    assert text.startswith("Depends on the seed: moody W4A8 · simulate · seeds 0, 1")
    assert "worse in 1 of 2 seeds" in text
