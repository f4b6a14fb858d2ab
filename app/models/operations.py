"""Long actions as objects: state, progress, log, cancel, retry. The window shows them; they know nothing of widgets."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Literal

from PySide6.QtCore import QObject, Signal

from app.models.problems import Problem

State = Literal["running", "done", "failed", "cancelled"]
#: Lines kept of an operation's log: enough to see what happened, bounded whatever the engine says.
LOG_LINES = 2000


class Operation(QObject):
    """One action that takes its time. *work* gets the operation, to report on; it may be run again after a failure."""

    changed = Signal()
    finished = Signal()

    def __init__(self, title: str, work: Callable[[Operation], Awaitable[None]], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.title = title
        self.work = work
        self.state: State = "running"
        self.status = ""
        self.done: float = 0
        self.total: float = 0
        self.layers: dict[str, tuple[str, float, float]] = {}
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.problem: Problem | None = None
        self.task: asyncio.Task[None] | None = None
        self.edit: Callable[[], object] | None = None

    @property
    def fraction(self) -> float | None:
        """How far it is, 0 to 1; None when that is not known."""
        return min(self.done / self.total, 1.0) if self.total > 0 else None

    def report(self, status: str, done: float | None = None, total: float | None = None) -> None:
        """Say what is being done now, and how far it is."""
        self.status = status
        if done is not None:
            self.done = done
        if total is not None:
            self.total = total
        self.changed.emit()

    def layer(self, key: str, status: str, done: float, total: float) -> None:
        """Say how far one part (a layer of an image) is; the whole is the sum of the parts that have a size."""
        self.layers[key] = (status, done, total)
        self.done = sum(one for _, one, _ in self.layers.values())
        self.total = sum(one for _, _, one in self.layers.values())
        self.changed.emit()

    def say(self, line: str) -> None:
        """One line for the log."""
        self.log.append(line)

    def end(self, state: State, problem: Problem | None = None) -> None:
        """Called by the bridge when the work is over."""
        self.state = state
        self.problem = problem
        self.task = None
        self.changed.emit()
        self.finished.emit()

    def cancel(self) -> None:
        """Stop it; what the engine had finished stays."""
        if self.task is not None:
            self.task.cancel()

    def restart(self) -> None:
        """Back to the start, for a retry by the bridge."""
        self.state, self.status, self.problem = "running", "", None
        self.done = self.total = 0
        self.layers.clear()
        self.changed.emit()


class Operations(QObject):
    """All operations that run or wait to be seen by the user."""

    added = Signal(object)
    removed = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.items: list[Operation] = []

    def add(self, operation: Operation) -> None:
        """Show one more."""
        operation.setParent(self)
        self.items.append(operation)
        self.added.emit(operation)

    def dismiss(self, operation: Operation) -> None:
        """The user has seen it."""
        if operation in self.items:
            self.items.remove(operation)
            self.removed.emit(operation)
            operation.deleteLater()
