"""The table of containers, with what each uses of processor and memory now and in the last minute."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from app.models.keyed import Column, KeyedTable
from app.models.rows import ContainerRow, Usage, age_text, memory_text, state_text, time_text

STATE, NAME, IMAGE, PORTS, CPU, MEMORY, CREATED, ACTIONS = range(8)
HISTORY = 60
_ORDER = {"running": 0, "restarting": 1, "paused": 2, "created": 3, "exited": 4, "dead": 5}


class ContainerTable(KeyedTable[ContainerRow]):
    """Containers by ID."""

    columns = (Column("State"), Column("Name"), Column("Image"), Column("Ports"), Column("CPU", right=True),
               Column("Memory", right=True), Column("Created"), Column(""))

    def __init__(self) -> None:
        super().__init__()
        self._usage: dict[str, deque[Usage]] = {}
        self.busy: dict[str, str] = {}

    def text(self, row: ContainerRow, column: int) -> str:
        if column == STATE:
            return self.busy.get(row.id) or state_text(row)[0]
        if column == NAME:
            return row.name
        if column == IMAGE:
            return row.image
        if column == PORTS:
            return ", ".join(link.text for link in row.ports)
        if column == CREATED:
            return age_text(row.created, time.time())
        last = self.usage(row.id)
        if column == CPU:
            return f"{last.cpu:.1f} %" if last and row.running else "–"
        if column == MEMORY:
            return memory_text(last.memory) if last and row.running else "–"
        return ""

    def sort_value(self, row: ContainerRow, column: int) -> Any:
        if column == STATE:
            return f"{_ORDER.get(row.state, 9)}{row.name.lower()}"
        if column == CREATED:
            return -row.created
        last = self.usage(row.id)
        if column == CPU:
            return last.cpu if last and row.running else -1.0
        if column == MEMORY:
            return last.memory if last and row.running else -1
        return self.text(row, column).lower()

    def tip(self, row: ContainerRow, column: int) -> str:
        if column == STATE:
            return row.status
        if column == NAME:
            return f"{row.name}\n{row.id[:12]}\n{row.command}"
        if column == CREATED:
            return time_text(row.created)
        return "" if column == ACTIONS else self.text(row, column)

    def usage(self, key: str) -> Usage | None:
        """The latest sample of a container."""
        samples = self._usage.get(key)
        return samples[-1] if samples else None

    def history(self, key: str) -> list[float]:
        """CPU of the last minute, oldest first."""
        return [one.cpu for one in self._usage.get(key, ())]

    def add_usage(self, batch: Mapping[str, Usage]) -> None:
        """One batch of samples: one narrow change for each container in it."""
        for key, sample in batch.items():
            if key in self._rows:
                self._usage.setdefault(key, deque(maxlen=HISTORY)).append(sample)
                self.touch(key, CPU, MEMORY)

    def set_busy(self, key: str, word: str) -> None:
        """Show *word* in place of the state while something is being done to a container; "" ends it."""
        if word:
            self.busy[key] = word
        else:
            self.busy.pop(key, None)
        self.touch(key, STATE, STATE)
        self.touch(key, ACTIONS, ACTIONS)

    def upsert(self, key: str, row: ContainerRow) -> None:
        if not row.running:
            self._usage.pop(key, None)
        super().upsert(key, row)

    def remove(self, key: str) -> None:
        self._usage.pop(key, None)
        self.busy.pop(key, None)
        super().remove(key)

    def tick_ages(self) -> None:
        """The clock moved on: ages may read differently."""
        for key in self.keys():
            self.touch(key, CREATED, CREATED)
