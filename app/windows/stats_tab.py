"""What a container uses and used: processor, memory, network and disks, from the engine's history on, live."""

from __future__ import annotations

import asyncio
import logging
import time

from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import QButtonGroup, QGridLayout, QPushButton, QVBoxLayout, QWidget

from app.models.rows import memory_text, size_text
from app.models.streams import reading
from app.models.usage import Counters, Sample, counters, live, past
from app.widgets.parts import button, label, row
from app.widgets.plot import Plot
from app.windows.context import Context
from backend.errors import EngineError

log = logging.getLogger(__name__)
#: Seconds shown, and of a row of the engine's history.
RANGES = (("10 minutes", 600, 1), ("24 hours", 86400, 10))


#: Axes of the fine view: the first that holds what there is.
_FINE = (120, 300, 600)


def _rate(value: float) -> str:
    return f"{size_text(value)}/s"


class StatsTab(QWidget):
    """Follows the container only while it is looked at; the engine keeps the history meanwhile."""

    def __init__(self, context: Context, key: str) -> None:
        super().__init__()
        self.context, self.key = context, key
        self.cpu = Plot("Processor", lambda value: f"{value:.1f} %", floor=10)
        self.memory = Plot("Memory", memory_text, floor=4 * 1024 * 1024)
        self.network = Plot("Network", _rate, floor=10_000, names=("in", "out"))
        self.disks = Plot("Disks", _rate, floor=100_000, names=("read", "written"))
        self.plots = (self.cpu, self.memory, self.network, self.disks)
        self.note = label("", "muted")
        self.ranges: list[QPushButton] = []
        self.step = 1
        self._task: asyncio.Task[None] | None = None
        group = QButtonGroup(self)
        for words, _, step in RANGES:
            one = button(words, kind="flat")
            one.setCheckable(True)
            one.setChecked(step == 1)
            one.clicked.connect(lambda _checked=False, step=step: self._range(step))
            group.addButton(one)
            self.ranges.append(one)
        grid = QGridLayout()
        grid.setHorizontalSpacing(28)
        grid.setVerticalSpacing(16)
        for place, plot in enumerate(self.plots):
            grid.addWidget(plot, place // 2, place % 2)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 8, 0, 0)
        box.setSpacing(8)
        box.addLayout(row(*self.ranges, None, self.note, spacing=2))
        box.addLayout(grid, 1)

    def clear(self) -> None:
        """The container does not run: nothing is used now; what was used stays."""
        self.note.setText("It does not run; this is what it used.")

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.begin()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self.stop()

    def stop(self) -> None:
        """Nobody looks any more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _range(self, step: int) -> None:
        self.step = step
        self.begin()

    def begin(self) -> None:
        """Follow it, from its history on."""
        self.stop()
        self._task = self.context.bridge.run("What it uses could not be followed", self._follow(), owner=self)

    async def _follow(self) -> None:
        """History first, then a sample a second for as long as it runs."""
        try:
            found = past(await self.context.client.usage(self.key, step=self.step))
            self._show(found)
        except EngineError as error:
            # Another engine keeps no history: what comes from now on is all there is.
            log.info("no history of %s: %s", self.key[:12], error.message)
        try:
            await self._live()
        except EngineError as error:
            self.note.setText(error.message)

    async def _live(self) -> None:
        before: Counters | None = None
        async with reading(self.context.client.stats(self.key)) as samples:
            async for stats in samples:
                now = counters(stats, time.time())
                if (sample := live(stats, before, now)) is not None:
                    self.note.setText("")
                    self._add(sample)
                before = now

    def _fit(self, oldest: float) -> None:
        """Ten minutes of which nine are empty say little: the axis grows with what there is."""
        age = time.time() - oldest
        span = next((one for one in _FINE if age <= one), _FINE[-1]) if self.step == 1 else RANGES[1][1]
        for plot in self.plots:
            plot.span = span

    def _show(self, found: list[Sample]) -> None:
        self._fit(found[0].at if found else time.time())
        times = [one.at for one in found]
        self.cpu.set_rows(times, [one.cpu for one in found])
        self.memory.set_rows(times, [one.memory for one in found])
        self.network.set_rows(times, [one.received for one in found], [one.sent for one in found])
        self.disks.set_rows(times, [one.read for one in found], [one.written for one in found])

    def _add(self, one: Sample) -> None:
        self._fit(self.cpu.times[0] if self.cpu.times else one.at)
        self.cpu.add(one.at, one.cpu)
        self.memory.add(one.at, one.memory)
        self.network.add(one.at, one.received, one.sent)
        self.disks.add(one.at, one.read, one.written)
