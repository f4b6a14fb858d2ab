"""A log in a window of its own."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QCloseEvent, QKeySequence, QShortcut
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app.models.log_feed import LogFeed
from app.widgets.log_pane import LogPane
from app.windows.context import Context


class LogWindow(QWidget):
    """Follows one container until it is closed; the container's end and the helper's absence are told at the foot."""

    def __init__(self, context: Context, key: str) -> None:
        super().__init__()
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setObjectName("page")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.context, self.key = context, key
        row = context.mirror.containers.get(key)
        self.name = row.name if row else key[:12]
        self.setWindowTitle(f"{self.name} – log")
        self.pane = LogPane(context.preferences, self.name, may_pop_out=False)
        box = QVBoxLayout(self)
        box.setContentsMargins(14, 8, 14, 10)
        box.addWidget(self.pane)
        self.feed = LogFeed(context.mirror, key, self.pane.feed, self.pane.set_ended)
        context.bridge.run("The log could not be read", self.feed.run(), owner=self,
                           failed=self.pane.banner.show_problem)
        QShortcut(QKeySequence("Ctrl+F"), self, self.pane.focus_find)
        QShortcut(QKeySequence("Ctrl+W"), self, self.close)
        layout = context.preferences.layout("log-window")
        if layout is None or not self.restoreGeometry(layout):
            self.resize(900, 560)
        self.pane.view.setFocus()

    def closeEvent(self, event: QCloseEvent) -> None:
        self.feed.close()
        self.context.preferences.keep_layout("log-window", self.saveGeometry())
        super().closeEvent(event)
