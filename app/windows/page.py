"""The base of all pages: title, a line under it, actions at the right, a banner for what failed, the body."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app.models.problems import Problem
from app.widgets.parts import Banner, label, row
from app.windows.context import Context


class Page(QWidget):
    """A page of the window. Subclasses fill `head` (at the right of the title) and `body`."""

    def __init__(self, context: Context, title: str) -> None:
        super().__init__()
        self.context = context
        #: Has the keyboard when the page is shown: its table, not a field in which a cursor would blink for ever.
        self.home: QWidget = self
        self._waiting: list[Callable[[], object]] = []
        self._catch_up_timer = QTimer(self)
        self._catch_up_timer.setSingleShot(True)
        self._catch_up_timer.timeout.connect(self._catch_up)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.setObjectName("page")
        self.title, self.subtitle = label(title, "title"), label("", "muted")
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(self.title)
        words.addWidget(self.subtitle)
        self.banner = Banner()
        self._again: Callable[[], object] | None = None
        self.banner.retry.clicked.connect(self._retry)
        self.head = row(spacing=8)
        top = row()
        top.addLayout(words)
        top.addStretch(1)
        top.addLayout(self.head)
        self.body = QVBoxLayout()
        self.body.setSpacing(0)
        box = QVBoxLayout(self)
        box.setContentsMargins(26, 20, 26, 14)
        box.setSpacing(12)
        box.addLayout(top)
        box.addWidget(self.banner)
        box.addLayout(self.body, 1)

    def soon(self, work: Callable[[], object]) -> Callable[..., None]:
        """A slot that does *work* once for a burst of signals; while the page cannot be seen, when it shows again."""
        def slot(*_: object) -> None:
            if work not in self._waiting:
                self._waiting.append(work)
                if self.isVisible():
                    self._catch_up_timer.start()
        return slot

    def _catch_up(self) -> None:
        waiting, self._waiting = self._waiting, []
        for work in waiting:
            work()

    def showEvent(self, event: QShowEvent) -> None:
        self._catch_up()
        super().showEvent(event)
        self.home.setFocus()

    def show_problem(self, problem: Problem, again: Callable[[], object] | None = None) -> None:
        """Say in place what went wrong; *again* makes a button of it."""
        self._again = again
        self.banner.show_problem(problem, retry=again is not None)

    def _retry(self) -> None:
        self.banner.hide()
        if self._again is not None:
            self._again()

    def focus_filter(self) -> None:
        """Ctrl+F: pages with a filter put the cursor into it."""
