"""A layer's files as a tree that asks for a directory when it is opened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from PySide6.QtCore import Qt
from PySide6.QtGui import QBrush, QColor
from PySide6.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem

from app import theme
from app.bridge import Bridge
from app.models.image_details import CHANGES, entry_about, entry_tip
from app.models.problems import Problem
from backend.spec.api.layers import LayerEntry, LayerFiles

_PATH = Qt.ItemDataRole.UserRole
_WAITING = Qt.ItemDataRole.UserRole + 1
#: Up to so many entries, a directory's unchanged ones are opened by themselves.
_FEW = 6
Ask = Callable[[str], Awaitable[LayerFiles]]


class LayerTree(QTreeWidget):
    """Call `show_layer` with a function that lists a directory of the layer."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self.bridge = bridge
        self._ask: Ask | None = None
        self._shown = 0
        self.setHeaderLabels(["File", "Change", "Size"])
        self.setAccessibleName("Files of the layer")
        self.header().setStretchLastSection(False)
        self.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.setColumnWidth(1, 90)
        self.setColumnWidth(2, 76)
        self.setUniformRowHeights(True)
        self.itemExpanded.connect(self._open)
        theme.state().changed.connect(self._tint_all)

    def show_layer(self, ask: Ask) -> None:
        """Show another layer from its root on."""
        self._ask = ask
        self._shown += 1
        self.clear()
        self._list(self.invisibleRootItem(), "/")

    def _list(self, parent: QTreeWidgetItem, path: str) -> None:
        if self._ask is None:
            return
        shown = self._shown

        async def work() -> LayerFiles:
            assert self._ask is not None
            return await self._ask(path)

        def failed(problem: Problem) -> None:
            if shown == self._shown:
                parent.addChild(QTreeWidgetItem([problem.why]))
        self.bridge.run("The files could not be listed", work(), owner=self, failed=failed,
                        then=lambda found: self._fill(parent, found) if shown == self._shown else None)

    def _fill(self, parent: QTreeWidgetItem, found: LayerFiles) -> None:
        base = found.path.rstrip("/")
        for entry in found.entries:
            parent.addChild(self._item(entry, f"{base}/{entry.name}"))
        if found.more:
            parent.addChild(QTreeWidgetItem(["and more, which are not shown"]))
        if not found.entries:
            parent.addChild(QTreeWidgetItem(["nothing"]))
        elif len(found.entries) <= _FEW:
            # Few directories hold what one looks for.
            for item in [parent.child(place) for place in range(parent.childCount())]:
                if item is not None and item.data(0, _WAITING) and item.data(1, _PATH) == CHANGES[""][2]:
                    item.setExpanded(True)

    def _item(self, entry: LayerEntry, path: str) -> QTreeWidgetItem:
        word, mark, tone = CHANGES[entry.change]
        item = QTreeWidgetItem([entry.name, f"{mark} {word}".strip(), entry_about(entry)])
        item.setData(0, _PATH, path)
        item.setData(1, _PATH, tone)
        item.setToolTip(0, entry_tip(entry))
        item.setToolTip(2, entry_about(entry))
        item.setIcon(0, theme.icon("folder" if entry.kind == "directory" else "file", theme.current().muted))
        self._tint(item)
        if entry.kind == "directory" and entry.change != "removed":
            item.setData(0, _WAITING, True)
            item.setChildIndicatorPolicy(QTreeWidgetItem.ChildIndicatorPolicy.ShowIndicator)
        return item

    def _tint(self, item: QTreeWidgetItem) -> None:
        item.setForeground(1, QBrush(QColor(getattr(theme.current(), item.data(1, _PATH)))))

    def _tint_all(self) -> None:
        waiting = [self.topLevelItem(place) for place in range(self.topLevelItemCount())]
        while waiting:
            item = waiting.pop()
            if item is not None:
                waiting += [item.child(place) for place in range(item.childCount())]
                if item.data(1, _PATH):
                    self._tint(item)

    def _open(self, item: QTreeWidgetItem) -> None:
        if item.data(0, _WAITING):
            item.setData(0, _WAITING, False)
            self._list(item, item.data(0, _PATH))
