"""The processes of a container. They come and go without an event, so they are asked for while somebody looks."""

from __future__ import annotations

from PySide6.QtCore import QTimer
from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem, QVBoxLayout, QWidget

from app.models.problems import Problem
from app.widgets.parts import Empty
from app.windows.context import Context
from backend.spec import api

EVERY_MS = 3000


class ProcessesTab(QWidget):
    """`ps` of the container, every few seconds while somebody looks."""

    def __init__(self, context: Context, key: str) -> None:
        super().__init__()
        self.context, self.key = context, key
        self.tree = QTreeWidget()
        self.tree.setRootIsDecorated(False)
        self.tree.setUniformRowHeights(True)
        self.tree.setAccessibleName("Processes")
        self.off = Empty("containers", "No processes", "The container does not run.")
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 10, 0, 0)
        box.addWidget(self.tree, 1)
        box.addWidget(self.off, 1)
        self.off.hide()
        self.again = QTimer(self)
        self.again.setSingleShot(True)
        self.again.setInterval(EVERY_MS)
        self.again.timeout.connect(self.ask)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.ask()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self.again.stop()

    def ask(self) -> None:
        """Look now."""
        self.context.bridge.run("The processes could not be listed", self.context.client.top(self.key), owner=self,
                                then=self.show_top, failed=self._failed)

    def show_top(self, found: api.Top) -> None:
        """Show a list of processes; the chosen one stays chosen."""
        self.off.hide()
        self.tree.show()
        if self.tree.columnCount() != len(found.titles) or self.tree.topLevelItemCount() == 0:
            self.tree.setHeaderLabels(found.titles)
            self.tree.header().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
            self.tree.header().setStretchLastSection(True)
        for place, process in enumerate(found.processes):
            item = self.tree.topLevelItem(place) or self._added()
            for column, text in enumerate(process):
                if item.text(column) != text:
                    item.setText(column, text)
        while self.tree.topLevelItemCount() > len(found.processes):
            self.tree.takeTopLevelItem(self.tree.topLevelItemCount() - 1)
        if self.isVisible():
            self.again.start()

    def _added(self) -> QTreeWidgetItem:
        item = QTreeWidgetItem()
        self.tree.addTopLevelItem(item)
        return item

    def _failed(self, problem: Problem) -> None:
        self.tree.hide()
        self.off.body.setText(problem.why)
        self.off.show()
