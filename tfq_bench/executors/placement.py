"""Where the next task runs: on which GPU, and whether there is room for it now."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfq_bench.types.tasks import Task

__all__ = ["Placement"]


class Placement:
    """Slots, spread evenly over devices.

    A device takes at most its share of the slots, rounded up. An exclusive task has its device to
    itself: it starts where nothing runs, and nothing starts beside it. What runs on other devices
    does not concern it.

    Args:
        slots: tasks at the same time, at least 1.
        devices: their names; without any, all tasks are at one place, whose name is "".

    Attributes:
        share: tasks of a device at the same time.
    """

    def __init__(self, slots: int, devices: Sequence[str] = ()) -> None:
        self._slots = slots
        self._devices = tuple(devices) or ("",)
        self.share = -(-slots // len(self._devices))

    def place(
        self, task: Task, running: Sequence[tuple[Task, str]], liked: Collection[str] = ()
    ) -> str | None:
        """The device with the fewest tasks, the first of several; None while `task` has to wait.

        Args:
            running: each task that runs, and its device.
            liked: devices that are taken before others with as few tasks.
        """
        if len(running) >= self._slots:
            return None
        loads: dict[str, list[Task]] = {device: [] for device in self._devices}
        for other, device in running:
            loads[device].append(other)
        usable = [
            device
            for device, tasks in loads.items()
            if len(tasks) < self.share and not any(other.exclusive for other in tasks)
        ]
        best = min(usable, key=lambda name: (len(loads[name]), name not in liked), default=None)
        if best is not None and task.exclusive and loads[best]:
            return None
        return best
