"""Tasks go where the fewest run, and a timing has its device to itself."""

import pytest

from tfq_bench.executors.placement import Placement


@pytest.fixture
def placed(task):
    """A function that places tasks one after another, none of which ends: their devices."""

    def place(placement, *names):
        running, found = [], []
        for name in names:
            one = task(name, exclusive=name == "timing")
            found.append(placement.place(one, running))
            if found[-1] is not None:
                running.append((one, found[-1]))
        return found

    return place


def test_one_task_a_device_in_their_order(placed):
    """As many slots as devices; what is over waits."""
    assert ["2", "0", "1", None] == placed(Placement(3, ("2", "0", "1")), "a", "b", "c", "d")


def test_more_slots_than_devices_share_evenly(placed):
    """The fewest running come first, and no device takes more than its share, rounded up."""
    assert ["0", "1", "0", "1", "0", None] == placed(Placement(5, ("0", "1")), *"abcdef")
    beside_a_timing = ["0", "1", "1", None]
    assert beside_a_timing == placed(Placement(4, ("0", "1")), "timing", "a", "b", "c")


def test_the_device_that_became_free_is_next(task):
    """Not the first of the list."""
    assert "1" == Placement(3, ("0", "1", "2")).place(
        task("c"), [(task("a"), "0"), (task("b"), "2")]
    )


@pytest.mark.parametrize(
    ("names", "devices"),
    [
        (("timing", "timing", "timing"), ["0", "1", None]),
        (("timing", "a", "timing"), ["0", "1", None]),
        (("a", "timing", "b"), ["0", "1", "0"]),
        (("a", "b", "timing"), ["0", "1", None]),
    ],
)
def test_a_timing_is_alone_on_its_device(placed, names, devices):
    """It starts where nothing runs, nothing starts beside it, and other devices go on."""
    assert devices == placed(Placement(4, ("0", "1")), *names)


def test_without_devices_a_timing_is_alone(placed):
    """All slots are at one place then."""
    assert ["", "", None] == placed(Placement(2), "a", "b", "c")
    assert ["", None] == placed(Placement(3), "a", "timing")
    assert ["", None] == placed(Placement(3), "timing", "a")
